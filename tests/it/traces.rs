//! The inner spans of traced calls, and the absence of spans for other calls.

use std::collections::{BTreeMap, BTreeSet};

use jackfield_api::v1;
use jackfield_testkit::process::{Process, Program, Site};
use jackfield_testkit::{Backend, Collector, Reply, System, fixture, on_both};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use tonic::Request;

use crate::{login, steps};

/// The attributes that spans may have besides the caller's: any other could contain a value.
const OF_STATEMENTS: [&str; 4] = ["db.collection.name", "db.operation.name", "db.system.name", "error.type"];

/// A request in the trace with this number.
fn traced<T>(number: u8, message: T) -> Request<T> {
    let mut request = Request::new(message);
    let parent = format!("00-{number:032x}-00f067aa0ba902b7-01");
    request.metadata_mut().insert("traceparent", parent.parse().expect("a value"));
    request
}

/// The driver of SQLite has a thread, which lets go of the span of a statement a moment after it has answered.
const LET_GO_NANOS: u64 = 5_000_000;

/// The spans of a trace below the span of its call: "name", or "name of the parent > name".
fn below_call(spans: &[Span], number: u8) -> BTreeSet<String> {
    let of_trace: Vec<_> =
        spans.iter().filter(|span| span.trace_id.last() == Some(&number) && span.trace_id[..15] == [0; 15]).collect();
    let calls: Vec<_> = of_trace.iter().filter(|span| span.kind == 2).collect();
    assert_eq!(calls.len(), 1, "{of_trace:?}");
    let call = calls[0];
    let by_id: BTreeMap<_, _> = of_trace.iter().map(|span| (span.span_id.clone(), *span)).collect();
    of_trace
        .iter()
        .filter(|span| span.span_id != call.span_id)
        .map(|span| {
            let above = by_id.get(&span.parent_span_id).unwrap_or_else(|| panic!("{} has no parent", span.name));
            assert!(call.start_time_unix_nano <= span.start_time_unix_nano, "{}", span.name);
            let end = call.end_time_unix_nano + LET_GO_NANOS;
            assert!(span.end_time_unix_nano <= end, "{} outlasts its call", span.name);
            match above.span_id == call.span_id {
                true => span.name.clone(),
                false => format!("{} > {}", above.name, span.name),
            }
        })
        .collect()
}

/// Starts a server that sends its spans to a collector. Without a `traceparent` no call is traced.
async fn start(backend: Backend) -> (Collector, Site, Process) {
    let collector = Collector::start().await;
    let mut site = Site::new(backend, Program::Jackfield);
    let telemetry = &mut site.config_mut().telemetry;
    (telemetry.otlp_endpoint, telemetry.trace_ratio) = (collector.endpoint(), 0.0);
    site.prepare().await;
    let process = site.start();
    (collector, site, process)
}

/// Stops a server, and returns all its spans.
async fn stop(process: Process, collector: &Collector) -> Vec<Span> {
    tokio::task::spawn_blocking(move || process.stop()).await.expect("the end of the server");
    let messages = collector.messages("TraceService");
    let requests = messages.iter().map(|message| ExportTraceServiceRequest::decode(message.as_slice()).expect("spans"));
    let scopes = requests.flat_map(|request| request.resource_spans).flat_map(|resource| resource.scope_spans);
    scopes.flat_map(|scope| scope.spans).collect()
}

/// The attributes of a span as text.
fn attributes(span: &Span) -> BTreeMap<&str, String> {
    let text = |value: &any_value::Value| match value {
        any_value::Value::StringValue(text) => text.clone(),
        any_value::Value::IntValue(number) => number.to_string(),
        value => format!("{value:?}"),
    };
    let value = |attribute: &KeyValue| attribute.value.as_ref().and_then(|value| value.value.as_ref()).map(text);
    let attributes = span.attributes.iter();
    attributes.map(|attribute| (attribute.key.as_str(), value(attribute).unwrap_or_default())).collect()
}

#[track_caller]
fn assert_has(found: &BTreeSet<String>, names: &[&str]) {
    for name in names {
        assert!(found.contains(*name), "no {name:?} in {found:?}");
    }
}

on_both! {
    async fn the_work_of_a_traced_call_is_below_its_span(backend: Backend) {
        let (collector, _site, process) = start(backend).await;
        let client = process.client("alpha");

        let secret = v1::Connector {
            secret_headers: [("x-secret".to_owned(), "canary".to_owned())].into(),
            ..fixture::a_connector("Gmail")
        };
        let create = v1::CreateConnectorRequest { connector: Some(secret), ..Default::default() };
        client.connectors().create_connector(traced(1, create)).await.expect("a connector");
        let link = steps::link(&client, "ada", "name:Gmail").await;
        let credential = steps::api_key(&client, &link, "canary").await;
        let get = v1::GetConnectorRequest { reference: "name:Gmail".to_owned() };
        client.connectors().get_connector(traced(2, get.clone())).await.expect("the connector");
        let issue = v1::IssueAccessTokenRequest { reference: credential.id.clone(), ..Default::default() };
        client.credentials().issue_access_token(traced(3, issue)).await.expect("a token");
        let list = traced(4, v1::ListConnectorsRequest::default());
        let mut listed = client.connectors().list_connectors(list).await.expect("a list").into_inner();
        while listed.message().await.expect("a message").is_some() {}
        client.connectors().get_connector(get).await.expect("the connector");
        let spans = stop(process, &collector).await;

        let created = below_call(&spans, 1);
        assert_has(&created, &["INSERT connector", "INSERT secret", "seal a secret", "COMMIT"]);
        let begun = if backend == Backend::Sqlite { "wait for the writer" } else { "BEGIN > wait for a connection" };
        assert_has(&created, &[begun]);
        assert_has(&below_call(&spans, 2), &["SELECT connector", "SELECT connector > wait for a connection"]);
        assert_has(&below_call(&spans, 3), &["open a secret"]);
        assert_has(&below_call(&spans, 4), &["SELECT connector", "SELECT connector > wait for a connection"]);
        assert_eq!(spans.iter().filter(|span| span.kind == 2).count(), 4, "others are not traced: {spans:?}");
        assert!(spans.iter().all(|span| span.trace_id[..15] == [0; 15]), "nor is their work: {spans:?}");

        let system = if backend == Backend::Sqlite { "sqlite" } else { "postgresql" };
        for span in spans.iter().filter(|span| span.kind == 3) {
            let keys: BTreeSet<_> = span.attributes.iter().map(|attribute| attribute.key.as_str()).collect();
            assert!(keys.iter().all(|key| OF_STATEMENTS.contains(key)), "{keys:?}");
            let of_system = span.attributes.iter().find(|attribute| attribute.key == "db.system.name").expect("a system");
            let value = of_system.value.clone().expect("a value").value;
            assert_eq!(value, Some(any_value::Value::StringValue(system.to_owned())));
        }
        for span in spans.iter().filter(|span| span.kind == 1) {
            assert!(span.attributes.is_empty(), "{span:?}");
        }
    }

    async fn a_call_to_another_system_is_a_span_and_only_some_connectors_pass_the_trace_on(backend: Backend) {
        let (collector, _site, process) = start(backend).await;
        let client = process.client("alpha");
        let system = System::start(|_| Reply::new(200, login::a_user().to_string())).await;
        let mut connectors = Vec::new();
        for propagate in [true, false] {
            let mut connector = login::connector(&client, &system, &format!("propagates: {propagate}")).await;
            connector.propagate_trace_context = Some(propagate);
            let authentication_url = system.url("/canary?canary=canary");
            let generic = v1::GenericConnector { authentication_url, ..Default::default() };
            connector.kind = Some(v1::connector::Kind::Generic(generic));
            connectors.push(login::create(&client, connector).await.id);
        }
        let log_in = |index: usize| login::a_login(&connectors[index], "canary", "canary");
        for (index, request) in [traced(1, log_in(0)), traced(2, log_in(1)), Request::new(log_in(0))].into_iter().enumerate() {
            client.connectors().authenticate_user(request).await.unwrap_or_else(|status| panic!("{index}: {status}"));
        }
        let spans = stop(process, &collector).await;

        assert_has(&below_call(&spans, 1), &["POST", "POST > open a connection"]);
        assert_has(&below_call(&spans, 2), &["POST", "POST > open a connection"]);
        let calls: Vec<_> = spans.iter().filter(|span| span.name == "POST").collect();
        assert_eq!(calls.len(), 2, "calls that are not traced have no span: {calls:?}");
        let port = system.url("").rsplit(':').next().expect("a port").to_owned();
        for (call, connector) in calls.iter().zip(&connectors) {
            let expected = [
                ("http.request.method", "POST"),
                ("http.response.status_code", "200"),
                ("jackfield.connector", connector),
                ("server.address", "localhost"),
                ("server.port", &port),
                ("url.scheme", "https"),
            ];
            assert_eq!((attributes(call), call.kind), (expected.map(|(key, value)| (key, value.to_owned())).into(), 3));
        }
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let parent = format!("00-{}-{}-01", hex(&calls[0].trace_id), hex(&calls[0].span_id));
        let received = system.received();
        let parents: Vec<_> = received.iter().map(|request| request.headers.get("traceparent")).collect();
        let parents: Vec<_> = parents.iter().map(|parent| parent.map(|value| value.to_str().expect("text"))).collect();
        assert_eq!(parents, [Some(&*parent), None, None]);
        let messages = collector.messages("TraceService");
        assert!(!messages.iter().any(|message| String::from_utf8_lossy(message).contains("canary")));
    }
}
