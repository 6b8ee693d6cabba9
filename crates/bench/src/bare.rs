//! The baselines that answer calls: tonic's own server over the same mutual TLS, with nothing around its handlers. Like
//! Jackfield, it runs in a separate process, with as many threads, and its answers have as many bytes.
//!
//! - `Echo` decodes the request of IssueAccessToken and answers with a prepared message.
//! - `Get` reads one document by its primary key through sea-orm and answers with a prepared message of the size of
//!   Jackfield's answer. It does not parse the document.
//! - `Token` reads the document of one credential by its primary key, and answers with the message of IssueAccessToken.
//! - `List` streams all connections of the tenant. A task reads page after page with the statement that Jackfield uses,
//!   and builds the same messages from the documents as Jackfield.
//! - `ListText` does not parse the documents: it copies them, cut to the size that Jackfield sends for a row, into
//!   messages of the same form.
//! - `Login` asks the same system as Jackfield, by one call over a warm pool, and answers with a prepared message. It
//!   does not parse the response.
//! - `Wait` answers as `Echo` does, as soon as `Open` is called.
//! - `Scan` is the first page of a bare-word filter without an index: the database searches the text of every row.
//!
//! Database connections come from Jackfield's store, with its settings.

use std::convert::Infallible;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use jackfield_api::v1;
use jackfield_testkit::connection_message;
use jackfield_testkit::store::test_support::entity::{connection, connector, credential};
use jackfield_testkit::store::test_support::page_statement;
use prost::Message as _;
use sea_orm::sea_query::{Expr, ExprTrait as _};
use sea_orm::{
    ColumnTrait as _, ConnectionTrait as _, DatabaseConnection, DbErr, EntityTrait as _, QueryFilter as _,
    QueryOrder as _, QuerySelect as _, QueryTrait as _,
};
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::server::{Grpc, NamedService, ServerStreamingService, UnaryService};
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;
use uuid::Uuid;

use crate::Result;
use crate::https::{self, Https, Peer};
use crate::stored::{self, Stored};

pub(crate) const ECHO: &str = "/jackfield.bench.Bare/Echo";
pub(crate) const GET: &str = "/jackfield.bench.Bare/Get";
pub(crate) const TOKEN: &str = "/jackfield.bench.Bare/Token";
pub(crate) const LIST: &str = "/jackfield.bench.Bare/List";
pub(crate) const LIST_TEXT: &str = "/jackfield.bench.Bare/ListText";
pub(crate) const LOGIN: &str = "/jackfield.bench.Bare/Login";
pub(crate) const WAIT: &str = "/jackfield.bench.Bare/Wait";
pub(crate) const OPEN: &str = "/jackfield.bench.Bare/Open";
pub(crate) const SCAN: &str = "/jackfield.bench.Bare/Scan";

/// The job of a baseline process.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Job {
    /// The directory with the certificates of Jackfield.
    pub(crate) pki: PathBuf,
    pub(crate) stored: Stored,
    /// The answer of IssueAccessToken, encoded.
    pub(crate) token: Vec<u8>,
    /// An answer of GetConnector, encoded.
    pub(crate) connector: Vec<u8>,
    /// The system that is asked, and the answer of AuthenticateUser when it accepts, encoded.
    pub(crate) login: Option<(Peer, Vec<u8>)>,
    /// The size of a list row in Jackfield's messages, in bytes.
    pub(crate) row_bytes: usize,
    /// The size of a page token, in bytes.
    pub(crate) token_bytes: usize,
}

/// The request of the lists.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub(crate) struct ListRequest {
    #[prost(uint32, tag = "1")]
    pub(crate) page_size: u32,
    /// A word to scan the rows for.
    #[prost(string, tag = "2")]
    pub(crate) word: String,
}

/// A page; on the wire it looks like one of Jackfield's.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
struct ListResponse {
    #[prost(string, repeated, tag = "1")]
    rows: Vec<String>,
    #[prost(string, tag = "2")]
    next_page_token: String,
}

#[derive(Clone)]
struct Bare(Arc<State>);

struct State {
    conn: Option<DatabaseConnection>,
    tenant: Uuid,
    token: v1::IssueAccessTokenResponse,
    connector: v1::GetConnectorResponse,
    login: Option<(Https, v1::AuthenticateUserResponse)>,
    row_bytes: usize,
    page_token: String,
    /// The callers of `Wait`.
    waiting: Notify,
}

/// Serves until standard input closes. Prints its address on standard output.
pub(crate) async fn serve(job: Job) -> Result<()> {
    let Job { pki, stored, token, connector, login, row_bytes, token_bytes } = job;
    let conn = match stored.is_empty() {
        true => None,
        false => Some(stored::connect(&stored).await?.reader),
    };
    let login = match login {
        None => None,
        Some((peer, answer)) => Some((Https::new(&peer)?, v1::AuthenticateUserResponse::decode(answer.as_slice())?)),
    };
    let state = State {
        conn,
        tenant: stored.tenant,
        token: v1::IssueAccessTokenResponse::decode(token.as_slice())?,
        connector: v1::GetConnectorResponse::decode(connector.as_slice())?,
        login,
        row_bytes,
        page_token: "t".repeat(token_bytes),
        waiting: Notify::new(),
    };
    let incoming = TcpIncoming::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?.with_nodelay(Some(true));
    let address = incoming.local_addr()?;
    let serving = Server::builder()
        .tls_config(tls(&pki)?)?
        .add_service(Bare(Arc::new(state)))
        .serve_with_incoming_shutdown(incoming, stdin_closes());
    let mut stdout = std::io::stdout();
    writeln!(stdout, "{address}")?;
    stdout.flush()?;
    Ok(serving.await?)
}

fn tls(pki: &Path) -> Result<ServerTlsConfig> {
    let read = |file: &str| std::fs::read(pki.join(file));
    Ok(ServerTlsConfig::new()
        .identity(Identity::from_pem(read("server.pem")?, read("server-key.pem")?))
        .client_ca_root(Certificate::from_pem(read("ca.pem")?)))
}

/// Returns when the process that started this one is gone.
pub(crate) async fn stdin_closes() {
    let wait = || {
        let mut stdin = std::io::stdin();
        // Nothing is ever sent, and any end of the stream counts.
        let _ = std::io::copy(&mut stdin, &mut std::io::sink());
    };
    let _ = tokio::task::spawn_blocking(wait).await;
}

// === impl Bare ===

impl NamedService for Bare {
    const NAME: &'static str = "jackfield.bench.Bare";
}

impl tower::Service<http::Request<Body>> for Bare {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, std::result::Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<std::result::Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, call: http::Request<Body>) -> Self::Future {
        let state = self.0.clone();
        Box::pin(async move {
            Ok(match call.uri().path() {
                ECHO => Grpc::new(ProstCodec::default()).unary(Echo(state), call).await,
                GET => Grpc::new(ProstCodec::default()).unary(Get(state), call).await,
                TOKEN => Grpc::new(ProstCodec::default()).unary(Token(state), call).await,
                WAIT => Grpc::new(ProstCodec::default()).unary(Wait(state), call).await,
                OPEN => {
                    state.waiting.notify_waiters();
                    Grpc::new(ProstCodec::default()).unary(Echo(state), call).await
                }
                LOGIN => Grpc::new(ProstCodec::default()).unary(Login(state), call).await,
                LIST => Grpc::new(ProstCodec::default()).server_streaming(List(state, read), call).await,
                LIST_TEXT => Grpc::new(ProstCodec::default()).server_streaming(List(state, text), call).await,
                _ => Grpc::new(ProstCodec::default()).unary(Scan(state), call).await,
            })
        })
    }
}

struct Echo(Arc<State>);

impl UnaryService<v1::IssueAccessTokenRequest> for Echo {
    type Response = v1::IssueAccessTokenResponse;
    type Future = std::future::Ready<std::result::Result<Response<Self::Response>, Status>>;

    fn call(&mut self, _: Request<v1::IssueAccessTokenRequest>) -> Self::Future {
        std::future::ready(Ok(Response::new(self.0.token.clone())))
    }
}

struct Wait(Arc<State>);

impl UnaryService<v1::IssueAccessTokenRequest> for Wait {
    type Response = v1::IssueAccessTokenResponse;
    type Future = BoxFuture<'static, std::result::Result<Response<Self::Response>, Status>>;

    fn call(&mut self, _: Request<v1::IssueAccessTokenRequest>) -> Self::Future {
        let state = self.0.clone();
        Box::pin(async move {
            state.waiting.notified().await;
            Ok(Response::new(state.token.clone()))
        })
    }
}

struct Get(Arc<State>);

impl UnaryService<v1::GetConnectorRequest> for Get {
    type Response = v1::GetConnectorResponse;
    type Future = BoxFuture<'static, std::result::Result<Response<Self::Response>, Status>>;

    fn call(&mut self, request: Request<v1::GetConnectorRequest>) -> Self::Future {
        let state = self.0.clone();
        Box::pin(async move {
            let id: Uuid = request.into_inner().reference.parse().map_err(|_| invalid())?;
            let select = connector::Entity::find_by_id((state.tenant, id));
            let select = select.select_only().column(connector::Column::Doc).into_tuple::<String>();
            let doc = select.one(state.conn()?).await.map_err(failed)?.ok_or_else(missing)?;
            if doc.is_empty() {
                return Err(missing());
            }
            Ok(Response::new(state.connector.clone()))
        })
    }
}

struct Token(Arc<State>);

impl UnaryService<v1::IssueAccessTokenRequest> for Token {
    type Response = v1::IssueAccessTokenResponse;
    type Future = BoxFuture<'static, std::result::Result<Response<Self::Response>, Status>>;

    fn call(&mut self, request: Request<v1::IssueAccessTokenRequest>) -> Self::Future {
        let state = self.0.clone();
        Box::pin(async move {
            let id: Uuid = request.into_inner().reference.parse().map_err(|_| invalid())?;
            let select = credential::Entity::find_by_id((state.tenant, id));
            let select = select.select_only().column(credential::Column::Doc).into_tuple::<String>();
            let doc = select.one(state.conn()?).await.map_err(failed)?.ok_or_else(missing)?;
            if doc.is_empty() {
                return Err(missing());
            }
            Ok(Response::new(state.token.clone()))
        })
    }
}

struct Login(Arc<State>);

impl UnaryService<v1::AuthenticateUserRequest> for Login {
    type Response = v1::AuthenticateUserResponse;
    type Future = BoxFuture<'static, std::result::Result<Response<Self::Response>, Status>>;

    fn call(&mut self, request: Request<v1::AuthenticateUserRequest>) -> Self::Future {
        let state = self.0.clone();
        Box::pin(async move {
            let (system, accepted) = state.login.as_ref().ok_or_else(missing)?;
            let v1::AuthenticateUserRequest { login_id, password, .. } = request.into_inner();
            match system.log_in(https::body(&login_id, &password)).await.map_err(Status::from_error)? {
                http::StatusCode::OK => Ok(Response::new(accepted.clone())),
                _ => Err(missing()),
            }
        })
    }
}

/// A list, with the function that builds a message from documents and a page token.
struct List<M>(Arc<State>, Render<M>);

type Render<M> = fn(&State, &[&str], String) -> std::result::Result<M, Status>;

impl<M: prost::Message + Default + 'static> ServerStreamingService<ListRequest> for List<M> {
    type Response = M;
    type ResponseStream = ReceiverStream<std::result::Result<M, Status>>;
    type Future = std::future::Ready<std::result::Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<ListRequest>) -> Self::Future {
        let (sender, pages) = mpsc::channel(1);
        let (state, render) = (self.0.clone(), self.1);
        #[expect(clippy::disallowed_methods, reason = "it ends with the process")]
        tokio::spawn(async move {
            if let Err(error) = state.send(request.into_inner().page_size, render, &sender).await {
                // This fails only if the receiver is gone.
                let _ = sender.send(Err(error)).await;
            }
        });
        std::future::ready(Ok(Response::new(ReceiverStream::new(pages))))
    }
}

struct Scan(Arc<State>);

impl UnaryService<ListRequest> for Scan {
    type Response = ListResponse;
    type Future = BoxFuture<'static, std::result::Result<Response<Self::Response>, Status>>;

    fn call(&mut self, request: Request<ListRequest>) -> Self::Future {
        let state = self.0.clone();
        Box::pin(async move {
            let ListRequest { page_size, word } = request.into_inner();
            let conn = state.conn()?;
            let sqlite = conn.get_database_backend() == sea_orm::DbBackend::Sqlite;
            // No index serves this LIKE, because its column is an expression.
            let text = if sqlite { "+connection.search_text" } else { "(connection.search_text || '')" };
            let holds = Expr::cust(text).like(format!("%{word}%"));
            #[expect(clippy::disallowed_methods, reason = "the tenant is the first condition")]
            let select = connection::Entity::find()
                .filter(connection::Column::TenantId.eq(state.tenant))
                .filter(holds)
                .order_by_asc(connection::Column::Id)
                .limit(u64::from(page_size) + 1);
            let select = select.select_only().column(connection::Column::Doc).into_tuple::<String>();
            let rows = select.all(conn).await.map_err(failed)?;
            Ok(Response::new(ListResponse { rows, next_page_token: String::new() }))
        })
    }
}

// === impl State ===

impl State {
    fn conn(&self) -> std::result::Result<&DatabaseConnection, Status> {
        self.conn.as_ref().ok_or_else(missing)
    }

    async fn send<M>(
        &self,
        page_size: u32,
        render: Render<M>,
        sender: &mpsc::Sender<std::result::Result<M, Status>>,
    ) -> std::result::Result<(), Status> {
        let conn = self.conn()?;
        let mut after = None;
        loop {
            // The reader is gone.
            let Ok(room) = sender.reserve().await else { return Ok(()) };
            let page = page(conn, self.tenant, after, page_size).await?;
            let mut docs: Vec<_> = page.lines().collect();
            let more = docs.len() > page_size as usize;
            docs.truncate(page_size as usize);
            after = docs.last().and_then(|doc| id_of(doc));
            let next_page_token = if more { self.page_token.clone() } else { String::new() };
            room.send(Ok(render(self, &docs, next_page_token)?));
            if !more {
                return Ok(());
            }
        }
    }
}

/// Builds the messages that Jackfield builds from the documents.
fn read(_: &State, docs: &[&str], next_page_token: String) -> std::result::Result<v1::ListConnectionsResponse, Status> {
    let connections = docs.iter().map(|doc| serde_json::from_str(doc).map(connection_message)).collect();
    let connections =
        std::result::Result::<_, serde_json::Error>::map_err(connections, |e| Status::from_error(e.into()))?;
    Ok(v1::ListConnectionsResponse { connections, next_page_token })
}

/// Copies the documents unparsed.
fn text(state: &State, docs: &[&str], next_page_token: String) -> std::result::Result<ListResponse, Status> {
    let rows = docs.iter().map(|doc| doc.get(..state.row_bytes).map(str::to_owned)).collect::<Option<_>>();
    Ok(ListResponse { rows: rows.ok_or_else(short)?, next_page_token })
}

async fn page(
    conn: &DatabaseConnection,
    tenant: Uuid,
    after: Option<Uuid>,
    size: u32,
) -> std::result::Result<String, Status> {
    #[expect(clippy::disallowed_methods, reason = "the tenant is the first condition")]
    let mut select = connection::Entity::find().filter(connection::Column::TenantId.eq(tenant));
    if let Some(after) = after {
        select = select.filter(connection::Column::Id.gt(after));
    }
    let select = select.order_by_asc(connection::Column::Id).select_only().column(connection::Column::Doc);
    let statement = page_statement(conn.get_database_backend(), select.into_query(), size + 1);
    let statement = statement.map_err(|error| Status::from_error(error.into()))?;
    let row = conn.query_one_raw(statement).await.map_err(failed)?.ok_or_else(missing)?;
    Ok(row.try_get_by_index::<Option<String>>(0).map_err(failed)?.unwrap_or_default())
}

/// The id of a document, without parsing the rest of it.
fn id_of(doc: &str) -> Option<Uuid> {
    let at = doc.find(r#""id":""#)? + 6;
    doc.get(at..at + 36)?.parse().ok()
}

fn invalid() -> Status {
    Status::from_error("the reference is no id".into())
}

fn short() -> Status {
    Status::from_error("a document is shorter than its message".into())
}

fn missing() -> Status {
    Status::from_error("there is no such row".into())
}

fn failed(error: DbErr) -> Status {
    Status::from_error(error.into())
}
