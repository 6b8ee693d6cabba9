//! The parts of OpenID Connect that the crate `oauth-as` leaves to others: ID tokens, keys, metadata and profiles.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jackfield_domain::{Clock as _, SystemClock};
use rcgen::{KeyPair, PKCS_ED25519, PublicKeyData as _, SigningKey as _};
use serde_json::{Value, json};

use super::{CLIENT, ISSUER};
use crate::system::Reply;

/// What an issuer publishes and signs. A response to a code whose request had a nonce gets an ID token.
pub struct OpenId {
    state: Mutex<State>,
}

/// An ID token before it is signed.
pub struct IdToken {
    pub header: Value,
    pub claims: Value,
    /// The key that signs it.
    pub key: Arc<KeyPair>,
    /// The text in place of the signed token.
    pub text: Option<String>,
    /// There is no token at all.
    pub absent: bool,
}

struct State {
    key: Arc<KeyPair>,
    /// The number of the key, by which it is named.
    number: u32,
    change: Box<dyn Fn(&mut IdToken) + Send>,
    /// The nonce of the last request for an ID token, if there was such a request, and if it had one.
    asked: Option<Option<String>>,
    /// The responses by path.
    pages: HashMap<String, Reply>,
}

// === impl OpenId ===

impl OpenId {
    pub(super) fn new() -> Self {
        let state = State { key: new_key(), number: 1, change: Box::new(|_| {}), asked: None, pages: HashMap::new() };
        OpenId { state: Mutex::new(state) }
    }

    /// From now on ID tokens are changed so before they are signed.
    pub fn change(&self, change: impl Fn(&mut IdToken) + Send + 'static) {
        self.locked().change = Box::new(change);
    }

    /// From now on ID tokens are signed by another key, which has another name.
    pub fn rotate(&self) {
        let mut state = self.locked();
        (state.key, state.number) = (new_key(), state.number + 1);
    }

    /// From now on a path has this JSON.
    pub fn publish(&self, path: &str, status: u16, body: &Value) {
        let headers = vec![("content-type", "application/json".to_owned())];
        let reply = Reply { headers, ..Reply::new(status, body.to_string()) };
        self.locked().pages.insert(path.to_owned(), reply);
    }

    /// The ID token for a nonce. `None` if there is none.
    ///
    /// # Panics
    /// Panics if the key cannot sign.
    pub fn id_token(&self, nonce: &str) -> Option<String> {
        self.id_token_for(Some(nonce))
    }

    /// From now on an ID token is asked for, by a request that has no nonce.
    pub fn asked_without_nonce(&self) {
        self.locked().asked = Some(None);
    }

    fn id_token_for(&self, nonce: Option<&str>) -> Option<String> {
        let state = self.locked();
        let now = SystemClock.now().seconds();
        let mut token = IdToken {
            header: json!({ "alg": "EdDSA", "kid": format!("key {}", state.number) }),
            claims: json!({
                "iss": ISSUER,
                "sub": "account-of-ada",
                "aud": CLIENT.0,
                "iat": now,
                "exp": now + 3_600,
            }),
            key: Arc::clone(&state.key),
            text: None,
            absent: false,
        };
        if let Some(nonce) = nonce {
            token.claims["nonce"] = nonce.into();
        }
        (state.change)(&mut token);
        (!token.absent).then(|| token.signed())
    }

    pub(super) fn asked(&self, nonce: Option<String>) {
        self.locked().asked = nonce.map(Some);
    }

    /// The page of a path, if there is one.
    pub(super) fn page(&self, path: &str) -> Option<Reply> {
        let state = self.locked();
        let page = state.pages.get(path).cloned();
        page.or_else(|| (path == "/jwks").then(|| Reply::new(200, json!({ "keys": [state.jwk()] }).to_string())))
    }

    /// A response of the token endpoint, with an ID token if one was asked for.
    pub(super) fn completed(&self, mut reply: Reply) -> Reply {
        let asked = self.locked().asked.clone();
        let body = serde_json::from_slice::<Value>(&reply.body).ok().filter(|body| body["access_token"].is_string());
        if let (Some(nonce), Some(mut body)) = (asked, body)
            && let Some(token) = self.id_token_for(nonce.as_deref())
        {
            body["id_token"] = token.into();
            reply.body = body.to_string().into();
        }
        reply
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl State ===

impl State {
    fn jwk(&self) -> Value {
        let x = URL_SAFE_NO_PAD.encode(self.key.der_bytes());
        json!({ "kty": "OKP", "crv": "Ed25519", "use": "sig", "kid": format!("key {}", self.number), "x": x })
    }
}

// === impl IdToken ===

impl IdToken {
    /// Signs it by a key that no issuer has published.
    pub fn forge(&mut self) {
        self.key = new_key();
    }

    fn signed(self) -> String {
        if let Some(text) = self.text {
            return text;
        }
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", part(&self.header), part(&self.claims));
        let signature = self.key.sign(message.as_bytes()).expect("a signature");
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

fn new_key() -> Arc<KeyPair> {
    Arc::new(KeyPair::generate_for(&PKCS_ED25519).expect("a key"))
}
