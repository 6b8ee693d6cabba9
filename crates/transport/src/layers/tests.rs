//! Third-party middleware between the layers.

use std::convert::Infallible;

use http_body_util::{BodyExt as _, Full};
use opentelemetry::metrics::MeterProvider as _;
use opentelemetry::metrics::noop::NoopMeterProvider;
use tonic::body::Body;
use tower::layer::layer_fn;
use tower::util::{MapRequest, option_layer};
use tower::{ServiceBuilder, service_fn};

use super::*;
use crate::call::context::CallContext;
use crate::call::{Request, Response, ResponseBody};

const ADDED: &str = "x-added";

fn request(path: &str) -> Request {
    http::Request::post(path).header("content-type", "application/grpc").body(Body::empty()).unwrap()
}

fn metrics() -> Metrics {
    Metrics::new(&NoopMeterProvider::new().meter("test"), &[])
}

#[tokio::test]
async fn middleware_of_tower_can_be_mounted_between_layers() {
    let add = |mut request: Request| {
        assert!(CallContext::current().is_some(), "it runs within the call");
        request.headers_mut().insert(ADDED, http::HeaderValue::from_static("1"));
        request
    };
    // A body of another type, as from middleware that compresses or counts.
    let full = |response: Response| response.map(|_| Full::new(bytes::Bytes::from_static(b"from outside")));
    let service = ServiceBuilder::new()
        .layer(ContextLayer { methods: Arc::default() })
        .layer(TraceLayer { ratio: 1.0 })
        .layer(InterceptLayer(Measure::new(metrics())))
        .layer(PanicLayer)
        .map_response(|response: http::Response<Full<bytes::Bytes>>| response.map(ResponseBody::new))
        .map_response(full)
        .layer(layer_fn(move |inner| MapRequest::new(inner, add)))
        .option_layer(Some(InterceptLayer(Limit::new(&TransportConfig::default(), metrics()))))
        .layer(option_layer(None::<PanicLayer>))
        .service(service_fn(async |request: Request| {
            assert_eq!(request.headers()[ADDED], "1");
            Ok::<_, Infallible>(http::Response::new(ResponseBody::new(Body::empty())))
        }));
    let response = Stack::new(service).call(request("/a.B/C")).await;
    assert!(response.headers().contains_key("x-request-id"));
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "from outside");
}
