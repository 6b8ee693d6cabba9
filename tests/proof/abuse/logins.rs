//! Log-ins with wrong passwords, many at once: each has a hash made that takes 19 MiB, and more processor time than all else in a call.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::FutureExt as _;
use jackfield_api::v1;
use jackfield_testkit::frame::{DATA, END_HEADERS, END_STREAM, HEADERS, frame};
use jackfield_testkit::{Client, fixture};
use prost::Message as _;
use tonic::Code;

use super::attacks::Attack;
use super::wire::{Caller, End, block, header, streams};
use super::{Field, Outcome};

const AUTHENTICATE: &str = "/jackfield.v1.ApplicationService/AuthenticateApplicationUser";
const APPLICATION: &str = "Attacked";
/// The users. As many log-ins are of names that are none of theirs, so that few are refused by the limit of attempts.
const USERS: usize = 32;
/// The log-ins at once on each connection.
const AT_ONCE: usize = 10;

const WRONG_PASSWORDS: Attack = Attack {
    name: "wrong passwords",
    // All that one client may have in progress.
    peers: 25,
    run: |caller, peer| async move { burst(caller, peer).await.unwrap_or_else(|error| End::of(&error)) }.boxed(),
    ends: &[End::Answered, End::Reset(0)],
};

impl Field {
    pub(super) async fn with_wrong_passwords(&mut self) -> Outcome {
        self.attack(WRONG_PASSWORDS, self.caller.clone(), &[]).await
    }
}

/// Creates the users, all at once: the memory that hashes take is kept, and so is part of what the server takes before the attacks.
pub(super) async fn prepare(client: &Client) {
    let application = Some(fixture::an_application(APPLICATION));
    let request = v1::CreateApplicationRequest { application, ..Default::default() };
    client.applications().create_application(request).await.expect("an application");
    let created = (0..USERS).map(|number| {
        let user = Some(fixture::a_user(&format!("user {number}")));
        let (mut users, request) = (client.users(), v1::CreateUserRequest { user, ..Default::default() });
        // All in one turn of a slow machine can take longer than a call may.
        async move {
            let mut tries = 0;
            while let Err(status) = users.create_user(request.clone()).await {
                tries += 1;
                match status.code() {
                    Code::DeadlineExceeded if tries < 5 => {}
                    // The call before was carried out after all.
                    Code::AlreadyExists if tries > 1 => break,
                    _ => panic!("a user: {status:?}"),
                }
            }
        }
    });
    futures::future::join_all(created).await;
    // An attack by calls that are refused would prove nothing.
    let response =
        client.applications().authenticate_application_user(wrong(0)).await.expect("a response").into_inner();
    assert_eq!(response.outcome(), v1::LoginOutcome::Rejected);
}

/// A log-in with a wrong password.
fn wrong(user: usize) -> v1::AuthenticateApplicationUserRequest {
    v1::AuthenticateApplicationUserRequest {
        application: format!("name:{APPLICATION}"),
        username: format!("user {user}"),
        password: "wrong".to_owned(),
        ..Default::default()
    }
}

/// Log-ins at once, of users and of others in turn. They wait for as long as it takes.
async fn burst(caller: Caller, peer: usize) -> io::Result<End> {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let mut conn = caller.http2(peer, &[]).await?;
    for stream in streams().take(AT_ONCE) {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = if number.is_multiple_of(2) { number / 2 % USERS } else { USERS + number };
        let message = wrong(name).encode_to_vec();
        let size = u32::try_from(message.len()).expect("a short message").to_be_bytes();
        let head = [block(AUTHENTICATE), header("grpc-timeout", "30S")].concat();
        let body = [&[0][..], &size, &message].concat();
        let call = [frame(HEADERS, END_HEADERS, stream, &head), frame(DATA, END_STREAM, stream, &body)];
        conn.send(&call.concat()).await?;
    }
    Ok(conn.streams_ended(u32::try_from(AT_ONCE).expect("few")).await)
}
