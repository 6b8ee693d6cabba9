//! Page tokens are valid for the request that they come from, and for no other.

use std::time::Duration;

use jackfield_testkit::fill::{Filled, fill};
use jackfield_testkit::{Ask, Client, List, ManualClock, TestServer, on_both};

use super::{ROWS, full, refused, tenant_id, tenant_id_of};

on_both! {
    async fn a_token_is_bound_to_list_tenant_filter_order_and_scope(server) {
        let (operator, filled) = full(&server).await;
        // The other tenant has rows, too: an accepted token would list them.
        fill(&server.store().await, tenant_id(&server).await, ROWS).await;
        for list in List::ALL {
            let ask = Ask { filter: "create_time > 2001-01-01T00:00:00Z".into(), ..Ask::pages_of(10) };
            let token = token(list, &operator, &ask).await;
            let same = list.rows(&operator, &ask.from(&token)).await.unwrap();
            assert_eq!(same.len() + 10, list.rows(&operator, &ask).await.unwrap().len(), "{list:?}");

            if list != List::Tenants {
                reject(list, &server.client("alpha"), &ask.from(&token), "of another tenant").await;
            }
            for other in List::ALL.into_iter().filter(|other| *other != list) {
                reject(other, &operator, &ask.from(&token), "of another list").await;
            }
            for filter in ["", "create_time > 2001-01-01T00:00:01Z", "create_time >= 2001-01-01T00:00:00Z", "a"] {
                reject(list, &operator, &Ask { filter: filter.into(), ..ask.from(&token) }, "of another filter").await;
            }
            for order_by in list.orders().iter().flat_map(|field| [field.to_string(), format!("{field} desc")]) {
                if order_by != "id" {
                    reject(list, &operator, &Ask { order_by, ..ask.from(&token) }, "of another order").await;
                }
            }
            let (user, other_user) = ("user-00000".to_owned(), "user-00001".to_owned());
            let connector = filled.connectors[0].to_string();
            let connection = filled.connections[0].to_string();
            let credential = filled.credentials[0].to_string();
            let application = filled.applications[0].to_string();
            let company_id = Filled::company(0).to_string();
            let scopes = |list| match list {
                List::Applications | List::ConnectorEvents | List::Connections => [false, true, false, false, false, false],
                List::Configurations => [true, true, false, true, false, false],
                List::Credentials => [true, true, true, false, false, false],
                List::Permissions => [true, false, false, false, true, true],
                List::Sessions => [true, false, false, false, true, false],
                List::UserConnectors => [true, true, false, false, false, false],
                List::Connectors | List::Keys | List::Tenants | List::Users => [false; 6],
            };
            let narrowed = [
                Ask { user_id: user, ..ask.from(&token) },
                Ask { connector, ..ask.from(&token) },
                Ask { connection, ..ask.from(&token) },
                Ask { credential, ..ask.from(&token) },
                Ask { application, ..ask.from(&token) },
                Ask { company_id, ..ask.from(&token) },
            ];
            for (narrowed, known) in narrowed.iter().zip(scopes(list)) {
                if known {
                    reject(list, &operator, narrowed, "of another scope").await;
                }
            }
            if scopes(list)[0] {
                let of_user = Ask { user_id: Filled::user(None), filter: String::new(), ..ask.clone() };
                let token = self::token(list, &operator, &of_user).await;
                reject(list, &operator, &Ask { user_id: other_user, ..of_user.from(&token) }, "of another user").await;
                let of_all = Ask { user_id: String::new(), ..of_user.from(&token) };
                reject(list, &operator, &of_all, "of a narrower list").await;
            }
        }
    }

    /// Another spelling of a filter is the same filter, and sizes are not part of the binding (AIP-158).
    async fn a_token_is_bound_to_the_meaning_of_its_request(server) {
        let (operator, _) = full(&server).await;
        let ask = Ask { filter: "name:* AND create_time > 2001-01-01T00:00:00Z".into(), ..Ask::pages_of(7) };
        let token = token(List::Connectors, &operator, &ask).await;
        let rest = List::Connectors.rows(&operator, &ask.from(&token)).await.unwrap();
        assert_eq!(rest.len(), ROWS - 7);
        let filter = " name = *  create_time>\"2001-01-01T01:00:00+01:00\"".to_owned();
        for (page_size, order_by) in [(1, "id"), (50, "id asc"), (1_000, ""), (-0, " id ")] {
            let again = Ask { filter: filter.clone(), page_size, order_by: order_by.into(), ..ask.from(&token) };
            assert!(List::Connectors.rows(&operator, &again).await.unwrap() == rest, "{again:?}");
        }
        let two = Ask { limit: 2, ..ask.from(&token) };
        assert!(List::Connectors.rows(&operator, &two).await.unwrap() == rest[..2]);
    }

    async fn an_altered_token_is_refused(server) {
        let (operator, _) = full(&server).await;
        let list = List::Connectors;
        let ask = Ask { order_by: "name desc".into(), ..Ask::pages_of(10) };
        let token = token(list, &operator, &ask).await;
        assert!(token.is_ascii() && token.len() < 512, "{token}");
        for length in 1..token.len() {
            reject(list, &operator, &ask.from(&token[..length]), "cut").await;
        }
        for at in 0..token.len() {
            // One bit, and another character of the alphabet: the last ones contain unused bits.
            for other in ['A', 'B', '_', '-'] {
                let altered: String = token.chars().enumerate().map(|(i, c)| if i == at { other } else { c }).collect();
                if altered != token {
                    reject(list, &operator, &ask.from(&altered), "altered").await;
                }
            }
        }
        let garbage = [
            " ".to_owned(),
            "=".to_owned(),
            format!("{token}="),
            format!("{token}A"),
            format!(" {token}"),
            format!("{token}\n"),
            format!("{token}{token}"),
            "AAAA".to_owned(),
            "' OR 1=1 --".to_owned(),
            "\0".to_owned(),
            "é".repeat(100),
            "A".repeat(100_000),
            "00000000-0000-0000-0000-000000000000".to_owned(),
        ];
        for garbage in garbage {
            reject(list, &operator, &ask.from(&garbage), "garbage").await;
        }
        assert_eq!(list.rows(&operator, &ask.from(&token)).await.unwrap().len(), ROWS - 10, "the unaltered token is valid");
    }

    /// A token is valid for 72 hours, in another process, too, and no longer.
    async fn a_token_expires(backend: Backend) {
        let clock = ManualClock::at_present();
        let mut server = TestServer::start_at(backend, clock.clone(), |_| {}).await;
        fill(&server.store().await, tenant_id_of(&server, "default").await, ROWS).await;
        let ask = Ask::pages_of(10);
        let token = token(List::Keys, &server.client("operator"), &ask).await;
        clock.advance(Duration::from_secs(72 * 3_600 - 1));
        server.restart().await;
        let operator = server.client("operator");
        assert_eq!(List::Keys.rows(&operator, &ask.from(&token)).await.unwrap().len(), ROWS - 10);
        let later = self::token(List::Keys, &operator, &ask.from(&token)).await;
        clock.advance(Duration::from_secs(1));
        reject(List::Keys, &operator, &ask.from(&token), "expired").await;
        assert_eq!(List::Keys.rows(&operator, &ask.from(&later)).await.unwrap().len(), ROWS - 20);
    }
}

/// The token of the first page.
async fn token(list: List, client: &Client, ask: &Ask) -> String {
    let pages = list.pages(client, &Ask { limit: ask.page_size, ..ask.clone() }).await.unwrap();
    assert!(!pages[0].next_page_token.is_empty(), "{list:?} {ask:?}");
    pages[0].next_page_token.clone()
}

async fn reject(list: List, client: &Client, ask: &Ask, what: &str) {
    let refusal = refused(list, client, ask, "PAGE_TOKEN_INVALID").await;
    refusal.expect_fields(&["page_token"]);
    // The description does not say which of these is wrong.
    assert_eq!(
        refusal.description("page_token"),
        "is not a token of this list with this filter and order, or has expired",
        "{what}"
    );
}
