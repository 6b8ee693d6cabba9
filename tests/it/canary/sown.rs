//! The planted secrets, and everything that can be read back.

use jackfield_api::v1;
use jackfield_testkit::canary::contains;
use jackfield_testkit::{Callers, Canary};
use prost::Message as _;
use prost_reflect::DynamicMessage;
use tonic::Code;

use super::plant::{SecretField, Targets, methods, path};
use super::raw::{Reply, call};

/// Lists whose items are not read one by one.
const WITHOUT_GET: [&str; 3] = ["ListConnectorEvents", "ListPermissions", "ListSessions"];

/// The planted secrets and the replies.
pub(super) struct Sown {
    pub(super) targets: Targets,
    pub(super) canaries: Vec<Canary>,
    /// The replies, named by their requests.
    pub(super) replies: Vec<(String, Reply)>,
}

// === impl Sown ===

impl Sown {
    /// Reads everything, as the callers with the widest read access.
    pub(super) async fn read_everything(&mut self, server: &impl Callers) {
        let mut items = 0;
        for (caller, list) in ["alpha", "operator"]
            .into_iter()
            .flat_map(|caller| methods().into_iter().map(move |method| (caller, method)))
            .filter(|(_, method)| method.name().starts_with("List"))
        {
            let client = server.client(caller);
            let reply = call(&client, &path(&list), &[], &[]).await;
            let item = list.output().get_field(1).unwrap();
            let get = methods().into_iter().find(|method| {
                method.name().starts_with("Get")
                    && method.output().get_field(1).map(|field| field.kind()) == Some(item.kind())
            });
            let get = get.or_else(|| {
                assert!(WITHOUT_GET.contains(&list.name()), "{} has no Get", list.name());
                None
            });
            for message in &reply.messages {
                let page = DynamicMessage::decode(list.output(), message.as_slice()).unwrap();
                let Some(get) = &get else { continue };
                for item in page.get_field(&item).as_list().unwrap() {
                    let id = item.as_message().unwrap().get_field_by_name("id").unwrap().into_owned();
                    let mut request = DynamicMessage::new(get.input());
                    request.set_field_by_name("reference", id);
                    let reply = call(&client, &path(get), &request.encode_to_vec(), &[]).await;
                    assert_eq!(reply.code, Code::Ok, "{}", get.name());
                    self.replies.push((get.name().to_owned(), reply));
                    items += 1;
                }
            }
            self.replies.push((format!("{caller}: {}", list.name()), reply));
        }
        assert!(items > 50, "{items} items");
        for method in methods().into_iter().filter(|method| method.input().fields().len() == 0) {
            let reply = call(&server.client("operator"), &path(&method), &[], &[]).await;
            self.replies.push((method.name().to_owned(), reply));
        }
    }

    /// Checks that the only two methods that return secrets do so, without a trace elsewhere, and that their refusals
    /// reveal nothing.
    pub(super) async fn hand_out(&mut self, server: &impl Callers, fields: &[SecretField]) {
        let alpha = server.client("alpha");
        let list = alpha.credentials().list_credentials(v1::ListCredentialsRequest::default()).await;
        let credentials = jackfield_testkit::collect::items(list).await.unwrap();
        let mut handed_out = Vec::new();
        for credential in &credentials {
            let reveal = v1::RevealCredentialRequest {
                reference: credential.id.clone(),
                purpose: "to see that it is there".to_owned(),
            };
            let issue = v1::IssueAccessTokenRequest { reference: credential.id.clone(), ..Default::default() };
            let reveal = reveal.encode_to_vec();
            let revealed = call(&alpha, "jackfield.v1.CredentialsService/RevealCredential", &reveal, &[]).await;
            assert_eq!(revealed.code, Code::Ok);
            handed_out.extend(revealed.bytes);
            let issued =
                call(&alpha, "jackfield.v1.CredentialsService/IssueAccessToken", &issue.encode_to_vec(), &[]).await;
            match issued.code {
                Code::Ok => handed_out.extend(issued.bytes),
                _ => self.replies.push(("IssueAccessToken, refused".to_owned(), issued)),
            }
            let reader = server.client("reader");
            for method in ["RevealCredential", "IssueAccessToken"] {
                let reply = call(&reader, &format!("jackfield.v1.CredentialsService/{method}"), &reveal, &[]).await;
                assert_eq!(reply.code, Code::PermissionDenied, "{method}");
                self.replies.push((format!("{method}, without the right"), reply));
            }
        }
        let mut found = 0;
        for field in fields.iter().filter(|field| field.is_material() && field.method.name() == "CreateCredential") {
            let planted_as = format!("{}, accepted", field.name());
            let canary = self.canaries.iter().find(|canary| canary.planted_as == planted_as).unwrap();
            assert!(contains(&handed_out, canary.secret.as_bytes()), "{planted_as} was not stored");
            found += 1;
        }
        assert_eq!(found, 9, "secrets of material");
    }
}
