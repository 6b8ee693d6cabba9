use std::time::Duration;

use rcgen::{ExtendedKeyUsagePurpose, SanType};
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::pki::{Leaf, Pki};
use crate::support::{CALLER, TestServer, assert_no_answer, unary};

#[tokio::test]
async fn a_known_certificate_identifies_its_principal() {
    let server = TestServer::start(|_| {}).await;
    let answer = unary(&server.channel().await, "Whoami", Duration::ZERO).await.unwrap();
    assert_eq!(answer.seconds, 1);
}

#[tokio::test]
async fn an_unknown_certificate_is_unauthenticated() {
    let server = TestServer::start(|_| {}).await;
    let several = Leaf {
        sans: vec![
            SanType::URI(CALLER.try_into().unwrap()),
            SanType::URI("spiffe://test.example/other".try_into().unwrap()),
        ],
        serial: 3,
        common_name: "client",
        valid_for: 3_600,
        usage: ExtendedKeyUsagePurpose::ClientAuth,
    };
    for client in [server.pki.client("spiffe://test.example/stranger", 2), server.pki.issue(&several)] {
        let channel = server.connect(&client).await.unwrap();
        let error = unary(&channel, "Whoami", Duration::ZERO).await.unwrap_err();
        assert_eq!(error.code(), Code::Unauthenticated);
        assert_eq!(error.get_details_error_info().unwrap().reason, "CALLER_UNAUTHENTICATED");
    }
}

#[tokio::test]
async fn the_handshake_refuses_missing_foreign_expired_and_server_certificates() {
    let server = TestServer::start(|_| {}).await;
    let leaf = |valid_for, usage| Leaf {
        sans: vec![SanType::URI(CALLER.try_into().unwrap())],
        serial: 4,
        common_name: "client",
        valid_for,
        usage,
    };
    let refused = [
        Pki::new().client(CALLER, 1),
        server.pki.issue(&leaf(-60, ExtendedKeyUsagePurpose::ClientAuth)),
        server.pki.issue(&leaf(3_600, ExtendedKeyUsagePurpose::ServerAuth)),
    ];
    for client in refused {
        // With TLS 1.3 a client learns that it was refused only when it reads.
        if let Ok(channel) = server.connect(&client).await {
            let error = unary(&channel, "Whoami", Duration::ZERO).await.unwrap_err();
            assert_no_answer(&error);
        }
    }
    let tls = tonic::transport::ClientTlsConfig::new()
        .ca_certificate(tonic::transport::Certificate::from_pem(server.pki.read("ca.pem")))
        .domain_name("localhost");
    let endpoint = tonic::transport::Endpoint::from_shared(format!("https://{}", server.address)).unwrap();
    if let Ok(channel) = endpoint.tls_config(tls).unwrap().connect().await {
        assert_no_answer(&unary(&channel, "Whoami", Duration::ZERO).await.unwrap_err());
    }
}

#[tokio::test]
async fn a_principal_of_a_missing_tenant_is_refused() {
    let server = TestServer::start(|config| config.identity.principals[0].tenant = "gone".into()).await;
    let error = unary(&server.channel().await, "Whoami", Duration::ZERO).await.unwrap_err();
    assert_eq!(error.code(), Code::PermissionDenied);
    assert_eq!(error.get_details_error_info().unwrap().reason, "TENANT_UNKNOWN");
}

#[tokio::test]
async fn every_answer_has_a_call_id_and_unknown_methods_are_explained() {
    let server = TestServer::start(|_| {}).await;
    let channel = server.channel().await;
    let error = unary(&channel, "Missing", Duration::ZERO).await.unwrap_err();
    assert_eq!(error.code(), Code::Unimplemented);
    let info = error.get_details_error_info().unwrap();
    assert_eq!((info.reason.as_str(), info.domain.as_str()), ("METHOD_UNKNOWN", "jackfield"));
    assert_eq!(info.metadata["method"], "/test.v1.Test/Missing");
    assert_eq!(error.metadata().get("x-request-id").unwrap().len(), 36);
}

#[tokio::test]
async fn causes_and_panics_stay_in_the_server() {
    let server = TestServer::start(|_| {}).await;
    let channel = server.channel().await;
    for method in ["Panic", "Fail"] {
        let error = unary(&channel, method, Duration::ZERO).await.unwrap_err();
        assert_eq!(error.code(), Code::Internal);
        assert!(!format!("{error:?}").contains("canary"), "{error:?}");
        let request_id = error.metadata().get("x-request-id").unwrap().to_str().unwrap();
        assert_eq!(error.get_details_error_info().unwrap().metadata["request_id"], request_id);
        assert_eq!(error.get_details_request_info().unwrap().request_id, request_id);
    }
    // The connection survived both.
    unary(&channel, "Whoami", Duration::ZERO).await.unwrap();
}
