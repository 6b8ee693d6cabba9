//! Plain HTTP requests, as the programs and the browser of a test make them.

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use url::form_urlencoded;

use super::PATIENCE;

/// A client. Its connections belong to the runtime that it is used in.
#[derive(Clone)]
pub struct Http(Client<HttpConnector, Full<Bytes>>);

/// A response.
pub(crate) struct Page {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

// === impl Http ===

impl Http {
    pub(crate) async fn get(&self, url: &str, headers: &[(&str, &str)]) -> Page {
        self.send(Method::GET, url, String::new(), headers).await
    }

    /// Sends a form.
    pub(crate) async fn post(&self, url: &str, members: &[(&str, &str)], headers: &[(&str, &str)]) -> Page {
        let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(members).finish();
        let mut all = vec![(CONTENT_TYPE.as_str(), "application/x-www-form-urlencoded")];
        all.extend_from_slice(headers);
        self.send(Method::POST, url, body, &all).await
    }

    /// The metadata that an issuer publishes (OpenID Connect Discovery 1.0).
    ///
    /// # Panics
    /// Panics if it publishes none.
    pub async fn metadata(&self, issuer: &str) -> Value {
        let page = self.get(&format!("{issuer}/.well-known/openid-configuration"), &[]).await;
        serde_json::from_str(&page.body).expect("JSON")
    }

    /// The status and the body of the answer to a form, which is JSON.
    ///
    /// # Panics
    /// Panics if there is no answer, or it is not JSON.
    pub async fn ask(&self, url: &str, members: &[(&str, &str)]) -> (u16, Value) {
        let page = self.post(url, members, &[("accept", "application/json")]).await;
        (page.status, serde_json::from_str(&page.body).expect("JSON"))
    }

    /// The status and the body of the profile of a user, for whom an access token stands.
    ///
    /// # Panics
    /// Panics if there is no answer.
    pub async fn profile(&self, url: &str, access_token: &str) -> (u16, Value) {
        let page = self.get(url, &[("authorization", &format!("Bearer {access_token}"))]).await;
        (page.status, serde_json::from_str(&page.body).unwrap_or_default())
    }

    async fn send(&self, method: Method, url: &str, body: String, headers: &[(&str, &str)]) -> Page {
        let mut request = Request::builder().method(method).uri(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(Bytes::from(body))).expect("a request");
        let answer = async {
            let response = self.0.request(request).await.unwrap_or_else(|error| panic!("{url}: {error:?}"));
            let (parts, body) = response.into_parts();
            let body = body.collect().await.expect("a body").to_bytes();
            let body = String::from_utf8_lossy(&body).into_owned();
            Page { status: parts.status.as_u16(), headers: parts.headers, body }
        };
        tokio::time::timeout(PATIENCE, answer).await.unwrap_or_else(|_| panic!("{url} does not answer"))
    }
}

impl Default for Http {
    fn default() -> Self {
        Http(Client::builder(TokioExecutor::new()).build_http())
    }
}
