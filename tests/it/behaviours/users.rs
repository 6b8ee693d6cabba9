//! The ids of users in all requests. They have one limit, whichever method gets them.

use super::*;

/// The most characters of an id. UserConnector.user_id says it.
const LONGEST: usize = 128;

/// The places where a request of a method names a user.
fn named(method: &MethodDescriptor) -> Vec<Path> {
    let mut paths = Vec::new();
    for field in method.input().fields() {
        if field.name() == "user_id" {
            paths.push(vec![field]);
            continue;
        }
        let inner = field.kind().as_message().and_then(|message| message.get_field_by_name("user_id"));
        paths.extend(inner.filter(|inner| !is(inner, "OUTPUT_ONLY")).map(|inner| vec![field, inner]));
    }
    paths
}

on_both! {
    async fn a_user_id_has_the_same_limit_in_every_request(server) {
        let mut tried = Vec::new();
        for method in methods() {
            for path in named(&method) {
                let (name, field) = (method.name().to_owned(), dotted(&path));
                let case = Case { request: DynamicMessage::new(method.input()), method: method.clone() };
                let mut fields = Vec::new();
                for length in [LONGEST, LONGEST + 1] {
                    let mut request = case.request.clone();
                    let last = path.last().unwrap();
                    parent(&mut request, &path).set_field(last, Value::String("u".repeat(length)));
                    let status = call(&server, &case, &request).await.err();
                    let refused = status.as_ref().and_then(|status| status.get_details_bad_request());
                    let violations = refused.map(|refused| refused.field_violations).unwrap_or_default();
                    let of_user = violations.into_iter().filter(|violation| violation.field == field);
                    fields.push(of_user.map(|violation| violation.description).collect::<Vec<_>>());
                }
                let too_long = format!("must be at most {LONGEST} characters long");
                assert_eq!(fields, [Vec::new(), vec![too_long]], "{name}: {field}");
                tried.push(name);
            }
        }
        assert!(tried.len() > 15, "{tried:?}");
    }
}
