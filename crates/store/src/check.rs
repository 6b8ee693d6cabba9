//! A check that rows are as they were written: each is derived again from its document and compared, column by column.
//! SQLite has no checksums of its pages, so a bit that changed in a page looks like any other value.

use std::collections::{BTreeMap, HashMap};

use jackfield_domain::{Clock as _, Error, Resource, Result, SystemClock, TenantId};
use sea_orm::sea_query::{Expr, ExprTrait as _};
use sea_orm::{
    ActiveModelTrait as _, ColumnTrait as _, DbErr, EntityName as _, EntityTrait as _, IdenStatic as _, Iterable as _,
    ModelTrait as _, PaginatorTrait as _, QueryFilter as _, QueryOrder as _, QuerySelect as _, Select, Value,
};
use serde::de::IgnoredAny;
use uuid::Uuid;

use crate::database::{Pooled, error};
use crate::document;
use crate::entity::{idempotency, label};
use crate::error::StoreError;
use crate::migration;
use crate::row;
use crate::store::Store;
use crate::stored::{ColumnOf, ModelOf, Stored, for_each_resource};

/// Rows that are read at once.
const BATCH: u64 = 500;

/// The most faults that are collected: that many are enough to know that a file is damaged.
const MOST: usize = 20;

/// The labels of a resource.
type LabelsOf = BTreeMap<String, String>;

/// The result so far.
#[derive(Default)]
struct Findings {
    rows: u64,
    labels: u64,
    faults: Vec<String>,
}

/// The tenant and id of the last row that was checked.
type Last = Option<(Uuid, Uuid)>;

impl Store {
    /// The number of rows of resources, and the first rows that differ from their documents. Labels and stored answers are
    /// checked, too. If the schema is older than this program, an earlier version wrote the rows in its own way: then documents
    /// and answers must be JSON, labels must belong to a resource, and the number of rows is `None`.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn row_faults(&self) -> Result<(Option<u64>, Vec<String>)> {
        let conn = &self.reader;
        let is_older = match migration::check(conn).await {
            Err(StoreError::SchemaOlder { .. }) => true,
            checked => checked.map(|_| false).map_err(Error::internal)?,
        };
        let mut found = Findings::default();
        for_each_resource!(R => {
            match is_older {
                true => found.check_older::<R>(conn).await?,
                false => found.check::<R>(conn).await?,
            }
        });
        #[expect(clippy::disallowed_methods, reason = "a check of the whole spans all tenants")]
        let labels = label::Entity::find().count(conn).await.map_err(error::from_db)?;
        if labels != found.labels && found.faults.is_empty() {
            found.faults.push(format!("labels that belong to no resource: {}", labels.abs_diff(found.labels)));
        }
        found.answers(conn, is_older).await?;
        found.faults.truncate(MOST);
        Ok(((!is_older).then_some(found.rows), found.faults))
    }
}

// === impl Findings ===

impl Findings {
    async fn check<S: Stored>(&mut self, conn: &Pooled) -> Result<()> {
        let mut last: Last = None;
        while self.faults.len() < MOST {
            let models = self.read(S::RESOURCE, last, batch::<S>(last).all(conn).await)?;
            let Some(end) = models.last() else { return Ok(()) };
            last = Some((uuid(end.get(S::TENANT_ID)), uuid(end.get(S::ID))));
            let ids: Vec<Uuid> = models.iter().map(|model| uuid(model.get(S::ID))).collect();
            let mut labels = labels(conn, S::RESOURCE, &ids).await?;
            for model in &models {
                let (tenant, id) = (TenantId(uuid(model.get(S::TENANT_ID))), uuid(model.get(S::ID)));
                let labels = labels.remove(&(tenant.0, id)).unwrap_or_default();
                self.rows += 1;
                self.labels += labels.len() as u64;
                if let Some(fault) = fault::<S>(model, tenant, labels) {
                    self.faults.push(format!("{} {id} of tenant {tenant}: {fault}", S::RESOURCE));
                }
            }
        }
        Ok(())
    }

    /// Checks rows of an older schema by the columns that all schemas have.
    async fn check_older<S: Stored>(&mut self, conn: &Pooled) -> Result<()> {
        if !migration::has_table(conn, S::Table::default().table_name()).await.map_err(error::from_db)? {
            return Ok(());
        }
        let mut last: Last = None;
        while self.faults.len() < MOST {
            let select = batch::<S>(last).select_only().columns([S::TENANT_ID, S::ID, S::DOC]);
            let rows = select.into_tuple::<(Uuid, Uuid, String)>().all(conn).await;
            let rows = self.read(S::RESOURCE, last, rows)?;
            let Some((tenant, id, _)) = rows.last() else { return Ok(()) };
            last = Some((*tenant, *id));
            let ids: Vec<Uuid> = rows.iter().map(|(_, id, _)| *id).collect();
            self.labels +=
                labels(conn, S::RESOURCE, &ids).await?.values().map(|labels| labels.len() as u64).sum::<u64>();
            for (tenant, id, _) in rows.iter().filter(|(.., doc)| !is_json(doc)) {
                self.faults.push(format!("{} {id} of tenant {tenant}: its document cannot be read", S::RESOURCE));
            }
        }
        Ok(())
    }

    /// The rows that a read returned. It is a fault if they are not of their types.
    fn read<T>(&mut self, resource: Resource, last: Last, rows: Result<Vec<T>, DbErr>) -> Result<Vec<T>> {
        rows.map_err(error::from_db).or_else(|error| match error.retryable() {
            true => Err(error),
            // For example, a text is not UTF-8. The database does not say in which row.
            false => {
                let after = last.map(|(_, id)| format!(" after {id}")).unwrap_or_default();
                self.faults.push(format!("a row of {resource}{after} cannot be read"));
                Ok(Vec::new())
            }
        })
    }

    /// Checks the answers that are stored for repeated requests. One whose time has passed is never read, so it is not checked.
    async fn answers(&mut self, conn: &Pooled, is_older: bool) -> Result<()> {
        if is_older && !migration::has_table(conn, idempotency::Entity.table_name()).await.map_err(error::from_db)? {
            return Ok(());
        }
        use idempotency::Column::{Answer, ExpireTime, Method, RequestId};
        let mut last = (SystemClock.now().0, Uuid::max());
        while self.faults.len() < MOST {
            #[expect(clippy::disallowed_methods, reason = "a check of the whole spans all tenants")]
            let select = idempotency::Entity::find().order_by_asc(ExpireTime).order_by_asc(RequestId).limit(BATCH);
            let key = Expr::tuple([ExpireTime, RequestId].map(|column| Expr::col(column.as_column_ref())));
            let select = select.filter(key.gt(Expr::tuple([Expr::val(last.0), Expr::val(last.1)])));
            let select = select.select_only().columns([ExpireTime, RequestId, Method, Answer]);
            let rows = select.into_tuple::<(i64, Uuid, String, String)>().all(conn).await.map_err(error::from_db)?;
            let Some((time, id, ..)) = rows.last() else { return Ok(()) };
            last = (*time, *id);
            for (_, id, method, answer) in &rows {
                // The answer to a request that was claimed and not answered is empty.
                if !answer.is_empty()
                    && let Some(fault) = answer_fault(method, answer, is_older)
                {
                    self.faults.push(format!("the answer to the request {id} ({method}) {fault}"));
                }
            }
        }
        Ok(())
    }
}

/// The rows after the last one.
fn batch<S: Stored>(last: Last) -> Select<S::Table> {
    #[expect(clippy::disallowed_methods, reason = "a check of the whole spans all tenants")]
    let select = S::Table::find().order_by_asc(S::TENANT_ID).order_by_asc(S::ID).limit(BATCH);
    let Some((tenant, id)) = last else { return select };
    let key = Expr::tuple([S::TENANT_ID, S::ID].map(|column| Expr::col(column.as_column_ref())));
    select.filter(key.gt(Expr::tuple([Expr::val(tenant), Expr::val(id)])))
}

/// The fault of a row, if there is one.
fn fault<S: Stored>(model: &ModelOf<S>, tenant: TenantId, labels: LabelsOf) -> Option<String> {
    let doc = text(model.get(S::DOC));
    let Ok(value) = document::try_decode::<S>(&doc, uuid(model.get(S::ID))) else {
        return Some("its document cannot be read".to_owned());
    };
    let Ok(expected) = row::of(tenant, &value) else { return Some("its document cannot be written".to_owned()) };
    for column in ColumnOf::<S>::iter() {
        let (is, was) = (model.get(column), expected.get(column).into_value());
        let same = if column.as_str() == S::DOC.as_str() {
            was.is_some_and(|was| document::are_equal(&text(was), &doc))
        } else {
            was.is_none_or(|was| was == is)
        };
        if !same {
            return Some(format!("its column {} and its document disagree", column.as_str()));
        }
    }
    let expected = value.labels().into_iter().flat_map(|labels| labels.iter());
    let expected: LabelsOf = expected.map(|(key, value)| (key.clone(), value.clone())).collect();
    (labels != expected).then(|| "its labels and its document disagree".to_owned())
}

/// The fault of a stored answer, if there is one. A method that returns a resource is answered with its document, of which an
/// older schema may have had another form.
fn answer_fault(method: &str, answer: &str, is_older: bool) -> Option<&'static str> {
    if !is_json(answer) {
        return Some("is not JSON");
    }
    if is_older {
        return None;
    }
    let returned = ["Create", "Import", "Update"].iter().find_map(|verb| method.strip_prefix(verb))?;
    for_each_resource!(R => {
        if returned.eq_ignore_ascii_case(&R::RESOURCE.as_str().replace('_', "")) {
            return serde_json::from_str::<R>(answer).is_err().then_some("is not the resource that the method returns");
        }
    });
    None
}

/// The labels of resources by tenant and id.
async fn labels(conn: &Pooled, owner: Resource, ids: &[Uuid]) -> Result<HashMap<(Uuid, Uuid), LabelsOf>> {
    #[expect(clippy::disallowed_methods, reason = "a check of the whole spans all tenants")]
    let select = label::Entity::find()
        .filter(label::Column::Owner.eq(owner.as_str()))
        .filter(label::Column::OwnerId.is_in(ids.iter().copied()));
    let mut labels: HashMap<_, LabelsOf> = HashMap::new();
    for row in select.all(conn).await.map_err(error::from_db)? {
        labels.entry((row.tenant_id, row.owner_id)).or_default().insert(row.label_key, row.label_value);
    }
    Ok(labels)
}

fn is_json(text: &str) -> bool {
    serde_json::from_str::<IgnoredAny>(text).is_ok()
}

fn uuid(value: Value) -> Uuid {
    match value {
        Value::Uuid(Some(id)) => id,
        _ => Uuid::nil(),
    }
}

fn text(value: Value) -> String {
    match value {
        Value::String(Some(text)) => text,
        _ => String::new(),
    }
}
