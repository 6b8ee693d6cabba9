//! Responses of licence servers, which are systems of others. They are compared with what a general parser of JSON reads.

use std::collections::HashSet;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use jackfield_upstream::client::Response;
use jackfield_upstream::license::{
    self, Authentication, CompanyPermissions, LicenseFault, MAX_COMPANIES, MAX_PERMISSIONS, MAX_TOKEN, Profile,
    Rejection, TokenResponse, USE_APP,
};
use serde_json::Value;

use super::{Target, Way, way};

pub(super) const RESPONSE: Target = Target {
    name: "license_response",
    check: check_response,
    parse: |data| {
        let Some((asked, response)) = split(data) else { return };
        match asked {
            Asked::Authentication => drop(license::read_authentication(response)),
            Asked::Profile => drop(license::read_profile(response)),
            Asked::Permissions => drop(license::read_permissions(response)),
            Asked::CompanyPermissions => drop(license::read_company_permissions(response)),
        }
    },
    // An empty text takes three bytes in a list, and becomes two texts in lists that grow by doubling.
    memory: |length| 64 * 1024 + 64 * length as u64,
    max_len: 16 * 1024,
    words: &[
        "{\"token\": \"t\", \"permissions\": [",
        "{\"permissions\": [",
        "{\"company_id\": \"a\", \"company_name\": \"b\", \"permissions\": [\"use_app\"]}",
        "{\"company_id\": 7, \"company_name\": null, \"permissions\": [",
        "{\"first_name\": \"a\", \"last_name\": \"b\", \"email\": \"c\"}",
        "{\"message\": \"m\", \"error_code\": \"NOT_AUTHORIZED\"}",
        "\"token\": ",
        "\"permissions\": ",
        "\"company_id\": ",
        "\"company_name\": ",
        "\"first_name\": ",
        "\"email\": ",
        "\"message\": ",
        "\"error_code\": ",
        "\"use_app\"",
        "\"NOT_FOUND\"",
        "\"hunter2!\"",
        "\"\\u0000\"",
        "\"\\ud800\"",
        "\"\\u202e\"",
        "\"é\"",
        "\"\"",
        "18446744073709551616",
        "-1",
        "1e999",
        "null",
        "true",
        "[",
        "]",
        "{",
        "}",
        ",",
        ":",
        "\"",
        "\u{feff}",
    ],
};

/// Occurs in values only, which no message may repeat.
const VALUE: &str = "hunter2!";
/// The longest text that is no token, in characters.
const MAX_TEXT: usize = 256;
const STATUSES: [u16; 8] = [200, 201, 401, 403, 404, 400, 500, 204];

/// The request that a response belongs to.
#[derive(Clone, Copy)]
enum Asked {
    Authentication,
    Profile,
    Permissions,
    CompanyPermissions,
}

/// The first byte decides about request and status, and the rest is the body.
fn split(data: &[u8]) -> Option<(Asked, Response)> {
    let (kind, body) = data.split_first()?;
    let asked = match kind % 4 {
        0 => Asked::Authentication,
        1 => Asked::Profile,
        2 => Asked::Permissions,
        _ => Asked::CompanyPermissions,
    };
    let status = StatusCode::from_u16(STATUSES[usize::from(kind / 4) % STATUSES.len()]).expect("a status");
    Some((asked, Response { status, headers: HeaderMap::new(), body: Bytes::copy_from_slice(body) }))
}

fn check_response(data: &[u8]) -> Way {
    let Some((asked, response)) = split(data) else { return way(&["empty"]) };
    let status = response.status;
    // A byte order mark at the beginning is skipped by the readers, which RFC 8259 8.1 allows.
    let body = response.body.strip_prefix(b"\xef\xbb\xbf".as_slice()).unwrap_or(&response.body).to_vec();
    // Nesting that is too deep for it, and numbers that are too large, may be in members that are ignored.
    let json = serde_json::from_slice::<Value>(&body).ok();
    let expect_success = || {
        assert!(matches!(status.as_u16(), 200 | 201), "{status} is a success");
        serde_json::from_slice::<serde::de::IgnoredAny>(&body).expect("a success is JSON");
    };
    match asked {
        Asked::Authentication => match license::read_authentication(response) {
            Ok(Authentication::Accepted(grant)) => {
                expect_success();
                let token = grant.token.expose();
                assert!(!token.is_empty() && token.len() <= MAX_TOKEN && token.bytes().all(|b| b.is_ascii_graphic()));
                assert!(!token.contains(VALUE) || !format!("{:?}", grant.token).contains(VALUE), "a token is printed");
                if let Some(json) = &json {
                    assert_eq!(json["token"].as_str(), Some(token));
                }
                check_companies(&grant.companies, json.as_ref());
                way(&["accepted", &"x".repeat(grant.companies.len().min(4))])
            }
            Ok(Authentication::Rejected(rejection)) => check_rejection(rejection, status, json.as_ref()),
            Err(fault) => check_fault(&fault, status),
        },
        Asked::Profile => check_token(license::read_profile(response), status, json.as_ref(), |profile| {
            expect_success();
            let Profile { first_name, last_name, email } = &profile;
            for (name, text) in [("first_name", first_name), ("last_name", last_name), ("email", email)] {
                check_text(text);
                if let Some(json) = &json {
                    assert_eq!(json[name].as_str().unwrap_or_default(), text);
                }
            }
            way(&["profile"])
        }),
        Asked::Permissions => check_token(license::read_permissions(response), status, json.as_ref(), |companies| {
            expect_success();
            check_companies(&companies, json.as_ref());
            way(&["permissions", &"x".repeat(companies.len().min(4))])
        }),
        Asked::CompanyPermissions => {
            check_token(license::read_company_permissions(response), status, json.as_ref(), |slugs| {
                if status == StatusCode::NOT_FOUND {
                    assert!(slugs.is_empty());
                    let json = json.as_ref().expect("an error that is read");
                    assert_eq!(json["error_code"], "NOT_FOUND");
                    return way(&["unknown company"]);
                }
                expect_success();
                if let Some(json) = &json {
                    assert_eq!(slugs, permitted(&json["permissions"]).unwrap_or_default());
                }
                way(&["slugs", &"x".repeat(slugs.len().min(4))])
            })
        }
    }
}

fn check_token<T>(
    read: Result<TokenResponse<T>, LicenseFault>,
    status: StatusCode,
    json: Option<&Value>,
    valid: impl FnOnce(T) -> Way,
) -> Way {
    match read {
        Ok(TokenResponse::Valid(value)) => valid(value),
        Ok(TokenResponse::TokenInvalid(rejection)) => {
            assert_ne!(status, StatusCode::NOT_FOUND, "a path that is unknown says nothing about a token");
            check_rejection(rejection, status, json)
        }
        Err(fault) => check_fault(&fault, status),
    }
}

/// Only an error of the protocol rejects.
fn check_rejection(rejection: Rejection, status: StatusCode, json: Option<&Value>) -> Way {
    assert_eq!(rejection.status, status);
    if let Some(json) = json {
        let code = json["error_code"].as_str();
        let expected = match status.as_u16() {
            401 if code.is_none() => json["message"].is_string(),
            401 | 403 => code == Some("NOT_AUTHORIZED"),
            404 => code == Some("NOT_FOUND"),
            _ => false,
        };
        assert!(expected, "{status} rejects");
    }
    way(&["rejected", &format!("{:?}", rejection.code)])
}

fn check_fault(fault: &LicenseFault, status: StatusCode) -> Way {
    let message = fault.to_string();
    assert!(!message.contains(VALUE), "a message repeats a value: {message}");
    assert!(message.len() <= 1_024, "a message has {} bytes", message.len());
    if matches!(fault, LicenseFault::Status { .. }) {
        assert!(!matches!(status.as_u16(), 200 | 201), "{status} is no fault by itself");
    }
    way(&["fault", fault.reason(), &message])
}

fn check_companies(companies: &[CompanyPermissions], json: Option<&Value>) {
    assert!(companies.len() <= MAX_COMPANIES);
    let mut ids = HashSet::new();
    for CompanyPermissions { company_id, company_name, permissions } in companies {
        assert!(ids.insert(company_id), "{company_id} is there twice");
        assert!(permissions.len() <= MAX_PERMISSIONS && permissions.iter().any(|slug| slug == USE_APP));
        [company_id, company_name].into_iter().chain(permissions).for_each(|text| check_text(text));
    }
    let Some(json) = json else { return };
    let expected = json["permissions"].as_array().expect("a list").iter().filter_map(|company| {
        let id = &company["company_id"];
        Some(CompanyPermissions {
            company_id: id.as_str().map_or_else(|| id.to_string(), str::to_owned),
            company_name: company["company_name"].as_str().unwrap_or_default().to_owned(),
            permissions: permitted(&company["permissions"])?,
        })
    });
    assert_eq!(companies, expected.collect::<Vec<_>>());
}

/// The permissions of a user who may use the application.
fn permitted(list: &Value) -> Option<Vec<String>> {
    let slugs = list.as_array().expect("a list").iter().map(|slug| slug.as_str().expect("a text").to_owned());
    let slugs: Vec<_> = slugs.collect();
    slugs.iter().any(|slug| slug == USE_APP).then_some(slugs)
}

fn check_text(text: &str) {
    assert!(text.chars().count() <= MAX_TEXT && !text.contains(char::is_control), "{text:?}");
}
