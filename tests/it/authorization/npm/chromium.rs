//! A user who authorises with a real browser at `oidc-provider`: its pages, its cookies and its redirects, and back to the application.

use jackfield_api::v1::AuthorizationState as State;
use jackfield_testkit::{Backend, Brought, Chromium, NpmPackage, TestServer};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::{World, registered_with};
use crate::authorization::complete;

/// Serves a page of the application at a free port, until the test ends. Returns its URL.
async fn application() -> String {
    let sockets = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://127.0.0.1:{}/back", sockets.local_addr().unwrap().port());
    tokio::spawn(async move {
        loop {
            let (mut socket, _) = sockets.accept().await.unwrap();
            tokio::spawn(async move {
                // A browser may open a connection and send nothing.
                let mut request = [0; 8 * 1024];
                if socket.read(&mut request).await.is_ok_and(|length| length > 0) {
                    let page = "<!doctype html><title>The application</title><h1>Welcome back</h1>";
                    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\nconnection: close";
                    let response = format!("{head}\r\ncontent-length: {}\r\n\r\n{page}", page.len());
                    let _ = socket.write_all(response.as_bytes()).await;
                }
            });
        }
    });
    url
}

on_sqlite! {
    async fn a_user_logs_in_and_permits(server) {
        let back = application().await;
        // Only a native client may come back without TLS (RFC 8252).
        let registration = registered_with(&json!({ "application_type": "native", "redirect_uris": [back] }));
        let settings = json!({ "clients": [registration], "rotates": true });
        let world = World::on(&server, NpmPackage::OidcProvider, &settings, |connection| {
            connection.redirect_uris = vec![back.clone()];
        })
        .await;
        let started = world.client.connections().start_authorization(world.request("ada")).await.unwrap().into_inner();
        let mut browser = Chromium::start().await;
        let login = browser.open(&started.authorization_url).await;
        assert_eq!(login.heading, "Sign-in", "{login:?}");
        let consent = browser.submit(&[("login", "ada"), ("password", "a password")]).await;
        assert_eq!(consent.heading, "Authorize", "{consent:?}");
        let welcome = browser.submit(&[]).await;
        assert_eq!(welcome.heading, "Welcome back", "{welcome:?}");
        let brought = Brought::at(&welcome.url);
        let completed = complete(&world.client, brought.completion("ada")).await.unwrap();
        assert_eq!(completed.state(), State::Completed, "{completed:?}");
        assert_eq!(world.facts(&completed.credential).await.provider_account_id(), "ada");
        let issued = world.issue(&completed.credential).await.unwrap();
        assert_eq!(world.find(&issued.access_token).await["account"], "ada");
    }
}
