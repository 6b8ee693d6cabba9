//! Statements whose text is built once. To build the text of a statement over several tables takes about as long as to read its row.

use sea_orm::sea_query::{SelectStatement, Value};
use sea_orm::{DbBackend, Statement};

/// The text of a statement, and its values in their order.
pub(crate) struct Template {
    backend: DbBackend,
    sql: String,
    slots: Vec<Slot>,
}

enum Slot {
    Constant(Value),
    Parameter(u8),
}

/// The place of a parameter in a statement of which a template is made. No column has values of this type.
pub(crate) fn parameter(number: u8) -> Value {
    Value::TinyUnsigned(Some(number))
}

// === impl Template ===

impl Template {
    /// Builds the text of a statement.
    pub(crate) fn of(backend: DbBackend, select: &SelectStatement) -> Self {
        let Statement { sql, values, .. } = backend.build(select);
        let slots = values.into_iter().flat_map(|values| values.0).map(|value| match value {
            Value::TinyUnsigned(Some(number)) => Slot::Parameter(number),
            constant => Slot::Constant(constant),
        });
        Template { backend, sql, slots: slots.collect() }
    }

    /// The statement with values for its parameters, by their numbers.
    pub(crate) fn statement<const COUNT: usize>(&self, parameters: [Value; COUNT]) -> Statement {
        let values = self.slots.iter().map(|slot| match slot {
            Slot::Constant(value) => value.clone(),
            Slot::Parameter(number) => parameters[usize::from(*number)].clone(),
        });
        Statement::from_sql_and_values(self.backend, &self.sql, values)
    }
}

#[cfg(test)]
mod tests {
    use sea_orm::sea_query::{Alias, Expr, ExprTrait as _, Query};

    use super::*;

    #[test]
    fn parameters_are_filled_and_constants_stay() {
        let column = |name: &'static str| Expr::col(Alias::new(name));
        let select = |first: Value, second: Value| {
            Query::select()
                .column(Alias::new("a"))
                .from(Alias::new("t"))
                .and_where(column("a").eq(second.clone()))
                .and_where(column("b").eq("constant"))
                .and_where(column("c").eq(first))
                .and_where(column("d").eq(second))
                .limit(1)
                .take()
        };
        for backend in [DbBackend::Sqlite, DbBackend::Postgres] {
            let template = Template::of(backend, &select(parameter(0), parameter(1)));
            for (first, second) in [("x", 1_i64), ("y", 2)] {
                let expected = backend.build(&select(first.into(), second.into()));
                assert_eq!(template.statement([first.into(), second.into()]), expected);
            }
        }
    }
}
