//! Every page of every list, however deep, is found through an index in its order, according to the query plans.

use jackfield_api::v1::GetTenantRequest;
use jackfield_domain::request::filter::Expr as Filter;
use jackfield_domain::request::order::{Order, OrderBy};
use jackfield_domain::request::page::{MAX_PAGE_BYTES, OrderValue, RowKey};
use jackfield_domain::value::text::{UserId, fold};
use jackfield_domain::{Resource, TenantId, Timestamp};
use jackfield_testkit::fill::{Filled, fill, fill_tenants};
use jackfield_testkit::store::{Hints, PageQuery, PageStep, Planned, Scope, Store};
use jackfield_testkit::{Backend, List, TestServer, on_both};
use uuid::Uuid;

/// The number of rows in each table. PostgreSQL reads tables of a few pages as a whole, whatever indexes there are.
const ROWS: usize = 3_000;

/// A filled server to query for plans.
struct Full {
    /// The server keeps the data alive.
    _server: TestServer,
    store: Store,
    tenant: TenantId,
    filled: Filled,
}

/// A list, its scope and filter, and its order.
struct Case {
    list: List,
    scope: (&'static str, Scope),
    order: Order,
}

on_both! {
    async fn every_page_is_found_by_an_index_in_its_order(backend: Backend) {
        let Full { _server, store, tenant, filled } = full(backend).await;

        let mut wrong = Vec::new();
        for case in cases(&filled) {
            for after in places(&case) {
                for planned in plannings(backend) {
                    let plan = plan_of(&store, tenant, &case, after.as_ref(), None, &PageStep::Page, *planned).await;
                    let fault = match backend {
                        Backend::Sqlite => fault_in_sqlite(&case, after.is_some(), &plan),
                        Backend::Postgres => fault_in_postgres(&case, after.is_some(), &plan),
                    };
                    if let Some(fault) = fault {
                        let Case { list, scope: (scope, _), order } = &case;
                        wrong.push(format!("{fault}: {list:?} {scope} {order:?} {after:?} {planned:?}\n{plan}"));
                    }
                }
            }
        }
        assert!(wrong.is_empty(), "{} plans are wrong\n{}", wrong.len(), wrong.join("\n\n"));
    }
}

on_both! {
    /// The word index finds rare words. A filter without an index is tried on a range of the order, whose end comes
    /// from the index of the order.
    async fn filtered_pages_are_found_by_an_index(backend: Backend) {
        let Full { _server, store, tenant, filled } = full(backend).await;

        let word = Filter::Word("needle".to_owned());
        let or = Filter::Or(vec![Filter::And(vec![word.clone(), Filter::Word("of".to_owned())]), Filter::Word("hay".to_owned())]);
        let not = Filter::Not(Box::new(word.clone()));
        let mut wrong = Vec::new();
        for case in cases(&filled) {
            let table = resource(case.list).as_str();
            let [start, middle, end] = <[_; 3]>::try_from(places(&case)).unwrap();
            let (after, until) = if case.order.descending { (end, middle) } else { (middle, end) };
            let until = until.unwrap();
            let steps = [
                (PageStep::Words, &word, &start),
                (PageStep::Words, &word, &after),
                (PageStep::Words, &or, &after),
                (PageStep::Window(until), &not, &after),
                (PageStep::WindowEnd(100), &not, &start),
                (PageStep::WindowEnd(100), &not, &after),
            ];
            for ((step, filter, after), planned) in
                steps.iter().flat_map(|step| plannings(backend).iter().map(move |planned| (step, *planned)))
            {
                let plan = plan_of(&store, tenant, &case, after.as_ref(), Some(filter), step, planned).await;
                let by_words = match backend {
                    Backend::Sqlite => {
                        plan.contains("search_index VIRTUAL TABLE INDEX")
                            && plan.contains(&format!("{table}_search_number_idx (search_number=?)"))
                    }
                    // If the scope leaves only a few rows, its own index is good enough.
                    Backend::Postgres if case.scope.0.ends_with("of one") => plan.contains("Bitmap Index Scan on "),
                    Backend::Postgres => plan.contains(&format!("Bitmap Index Scan on {table}_search_idx")),
                };
                let ordered = match backend {
                    Backend::Sqlite => plan.lines().count() == 1 && plan.contains("INDEX "),
                    Backend::Postgres => plan.contains(" using ") && !plan.contains("Sort") && !plan.contains("Seq Scan"),
                };
                let condition = plan.lines().find(|line| line.contains("Index Cond:")).unwrap_or(&plan);
                let bounded = condition.contains('>') && condition.contains('<');
                let right = match step {
                    PageStep::Words => by_words,
                    PageStep::Window(_) => bounded && (backend == Backend::Postgres || ordered),
                    PageStep::Page | PageStep::WindowEnd(_) => ordered,
                };
                if !right {
                    let Case { list, scope: (scope, _), order } = &case;
                    wrong.push(format!("{list:?} {scope} {order:?} {after:?} {step:?} {filter} {planned:?}\n{plan}"));
                }
            }
        }
        assert!(wrong.is_empty(), "{} plans are wrong\n{}", wrong.len(), wrong.join("\n\n"));
    }
}

/// A server with a tenant with full tables, and up-to-date statistics in the database.
async fn full(backend: Backend) -> Full {
    let server = TestServer::start(backend).await;
    let request = GetTenantRequest { reference: "name:alpha".to_owned() };
    let tenant = server.client("operator").admin().get_tenant(request).await.unwrap();
    let tenant = TenantId(tenant.into_inner().tenant.unwrap().id.parse().unwrap());
    let store = server.store().await;
    let filled = fill(&store, tenant, ROWS).await;
    fill_tenants(&store, ROWS).await;
    if backend == Backend::Postgres {
        server.sql("vacuum analyze").await;
    }
    Full { _server: server, store, tenant, filled }
}

/// Every list in every order with every scope: one that contains half of the rows, and one that contains a single row.
fn cases(filled: &Filled) -> Vec<Case> {
    let last = ROWS - 1;
    let user = |i| UserId::stored(Filled::user(i));
    let none = Scope::default;
    let all_scopes = [
        ("all", none()),
        ("user of many", Scope { user_id: Some(user(None)), ..none() }),
        ("user of one", Scope { user_id: Some(user(Some(1))), ..none() }),
        ("connector of many", Scope { connector: Some(filled.connectors[0]), ..none() }),
        ("connector of one", Scope { connector: Some(filled.connectors[last]), ..none() }),
        ("connection of many", Scope { connection: Some(filled.connections[0]), ..none() }),
        ("connection of one", Scope { connection: Some(filled.connections[last]), ..none() }),
        ("credential of many", Scope { credential: Some(filled.credentials[0]), ..none() }),
        ("credential of one", Scope { credential: Some(filled.credentials[last]), ..none() }),
        ("application of many", Scope { application: Some(filled.applications[0]), ..none() }),
        ("application of one", Scope { application: Some(filled.applications[last]), ..none() }),
        ("company of many", Scope { company_id: Some(Filled::company(0)), ..none() }),
        ("company of one", Scope { company_id: Some(Filled::company(last)), ..none() }),
    ];
    let mut cases = Vec::new();
    for list in List::ALL {
        let known: &[&str] = match list {
            List::Configurations => &["all", "user", "connector", "credential"],
            List::Applications | List::ConnectorEvents | List::Connections => &["all", "connector"],
            List::Permissions => &["all", "user", "application", "company"],
            List::Sessions => &["all", "user", "application"],
            List::Credentials => &["all", "user", "connector", "connection"],
            List::UserConnectors => &["all", "user", "connector"],
            List::Connectors | List::Keys | List::Tenants | List::Users => &["all"],
        };
        let scopes = || all_scopes.iter().filter(|(name, _)| known.contains(&name.split(' ').next().unwrap()));
        for by in list.orders().iter().map(|name| order_by(name)) {
            for descending in [false, true] {
                let order = Order { by, descending };
                cases.extend(scopes().map(|(name, scope)| Case { list, scope: (name, scope.clone()), order }));
            }
        }
    }
    cases
}

fn order_by(name: &str) -> OrderBy {
    let all = [OrderBy::CreateTime, OrderBy::Id, OrderBy::Name, OrderBy::UserId];
    all.into_iter().find(|by| by.as_str() == name).unwrap()
}

/// The beginning, the middle and almost the end, in the order of the case.
fn places(case: &Case) -> Vec<Option<RowKey>> {
    let values = match case.order.by {
        OrderBy::Id => [None, None],
        OrderBy::Name if case.list == List::Tenants => ["tenant-01500", "tenant-02990"].map(text),
        OrderBy::Name => [text(&fold("beta 01501")), text(&fold("ångström 02990"))],
        OrderBy::UserId => ["user-00750", "user-of-many"].map(text),
        OrderBy::CreateTime => [500, 990].map(|step| Some(OrderValue::Time(1_700_000_000_000_000 + step * 1_000))),
    };
    let key = |value| Some(RowKey { value, id: Uuid::now_v7() });
    let [middle, deep] = values.map(key);
    vec![None, middle, deep]
}

fn text(text: &str) -> Option<OrderValue> {
    Some(OrderValue::Text(text.to_owned()))
}

const fn plannings(backend: Backend) -> &'static [Planned] {
    match backend {
        Backend::Sqlite => &[Planned::Once],
        Backend::Postgres => &[Planned::Once, Planned::ForAll],
    }
}

const fn resource(list: List) -> Resource {
    match list {
        List::Applications => Resource::Application,
        List::Configurations => Resource::Configuration,
        List::Connections => Resource::Connection,
        List::ConnectorEvents => Resource::ConnectorEvent,
        List::Connectors => Resource::Connector,
        List::Credentials => Resource::Credential,
        List::Keys => Resource::Key,
        List::Permissions => Resource::PermissionGrant,
        List::Sessions => Resource::Session,
        List::Tenants => Resource::Tenant,
        List::UserConnectors => Resource::UserConnector,
        List::Users => Resource::User,
    }
}

async fn plan_of(
    store: &Store,
    tenant: TenantId,
    case: &Case,
    after: Option<&RowKey>,
    filter: Option<&Filter>,
    step: &PageStep,
    planned: Planned,
) -> String {
    let (_, scope) = &case.scope;
    let query = PageQuery {
        tenant,
        filter,
        scope,
        order: case.order,
        after: after.cloned(),
        size: 100,
        max_bytes: MAX_PAGE_BYTES,
        now: Timestamp(0),
        hints: Hints::default(),
    };
    let plan = store.explain_page(resource(case.list), &query, step, planned).await.unwrap();
    // The outer steps join the documents into one text, in their order.
    let inner = plan.strip_prefix("CO-ROUTINE page\n").and_then(|rest| rest.strip_suffix("\nSCAN page"));
    inner.unwrap_or(&plan).to_owned()
}

/// Checks that the plan is one line: an index search that continues after the key by an index bound and sorts nothing.
fn fault_in_sqlite(case: &Case, has_key: bool, plan: &str) -> Option<&'static str> {
    // The list of tenants has no condition except the key.
    let all_tenants = case.list == List::Tenants && !has_key;
    let search = if all_tenants { "SCAN tenant USING INDEX " } else { "SEARCH " };
    let narrowed = all_tenants || case.list == List::Tenants || plan.contains("tenant_id=?");
    let bound =
        |column: &str| plan.contains(&format!("({column},id)>(?,?)")) || plan.contains(&format!("({column},id)<(?,?)"));
    let by_id = ["(id>?", "(id<?", " id>?", " id<?"].iter().any(|bound| plan.contains(bound));
    let by_key = match case.order.by {
        _ if !has_key => true,
        OrderBy::Id => by_id,
        OrderBy::UserId if case.scope.1.user_id.is_some() => by_id,
        OrderBy::Name => plan.contains("name_key>?") || plan.contains("name_key<?"),
        OrderBy::UserId => bound("user_id"),
        OrderBy::CreateTime => bound("create_time"),
    };
    match () {
        () if plan.lines().count() != 1 => Some("more than one step"),
        () if !plan.starts_with(search) || !plan.contains(" USING INDEX ") || !narrowed => Some("no search by index"),
        () if !by_key => Some("no bound by key"),
        () => None,
    }
}

/// Checks that the plan is an index scan that begins after the key and sorts nothing.
fn fault_in_postgres(case: &Case, has_key: bool, plan: &str) -> Option<&'static str> {
    let condition = plan.lines().find(|line| line.trim_start().starts_with("Index Cond:")).unwrap_or_default();
    let one_column = case.order.by.is_unique() || (case.order.by == OrderBy::UserId && case.scope.1.user_id.is_some());
    let by_key = if one_column { condition.contains(['>', '<']) } else { condition.contains("ROW(") };
    match () {
        () if plan.contains("Seq Scan") => Some("the whole table is read"),
        () if plan.contains("Sort") => Some("the rows are sorted"),
        () if !plan.contains("Index Scan") => Some("no index is used"),
        () if case.list != List::Tenants && !condition.contains("tenant_id = ") => Some("no search by tenant"),
        () if has_key && !by_key => Some("no bound by key"),
        () => None,
    }
}
