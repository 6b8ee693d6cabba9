//! The licence API, with its published Python clients as the oracle. The test command skips this module by name if they are
//! missing.

mod client;
mod served;

use jackfield_testkit::cloudspot;
use serde_json::{Value, json};

/// Makes calls with a release of the Python client, and returns the outcome of each.
async fn python(release: &str, base: &str, application: &str, calls: Value) -> Vec<Value> {
    let outcomes = cloudspot::calls(release, base, application, &calls.to_string()).await;
    serde_json::from_str(&outcomes).expect("a list of outcomes")
}

/// The same for a single call.
async fn python_once(release: &str, base: &str, application: &str, call: Value) -> Value {
    python(release, base, application, json!([call])).await.remove(0)
}
