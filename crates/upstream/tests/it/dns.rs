//! A DNS server of the test's own, on UDP and TCP.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};

use hickory_resolver::proto::op::{Message, OpCode, ResponseCode};
use hickory_resolver::proto::rr::rdata::CNAME;
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use jackfield_upstream::resolve::{Files, SystemResolver};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::JoinHandle;

/// A running server. It ends when this value is dropped.
pub(crate) struct DnsServer {
    pub(crate) address: SocketAddr,
    zone: Arc<Zone>,
    tasks: [JoinHandle<()>; 2],
}

pub(crate) struct Question {
    /// In lower case, without the final dot.
    pub(crate) name: String,
    pub(crate) kind: RecordType,
    /// The times that the same was asked before.
    pub(crate) before: usize,
}

pub(crate) enum Answer {
    Records(Vec<Record>),
    /// Over UDP the answer says only that it is truncated.
    OverTcp(Vec<Record>),
    Code(ResponseCode),
    Silence,
}

struct Zone {
    answers: Box<dyn Fn(&Question) -> Answer + Send + Sync>,
    asked: Mutex<HashMap<(String, RecordType), usize>>,
}

/// The largest message over UDP.
const MAX_UDP: usize = 4096;

// === impl DnsServer ===

impl DnsServer {
    #[expect(clippy::disallowed_methods, reason = "the tasks end with the test")]
    pub(crate) async fn start(answers: impl Fn(&Question) -> Answer + Send + Sync + 'static) -> Self {
        let (udp, tcp) = sockets().await;
        let address = udp.local_addr().unwrap();
        let zone = Arc::new(Zone { answers: Box::new(answers), asked: Mutex::default() });
        let tasks = [tokio::spawn(serve_udp(udp, zone.clone())), tokio::spawn(serve_tcp(tcp, zone.clone()))];
        DnsServer { address, zone, tasks }
    }

    /// A resolver that asks this server, and has no hosts file.
    pub(crate) fn resolver(&self) -> SystemResolver {
        let none = || "/nonexistent/jackfield".into();
        SystemResolver::new(Files { hosts: none(), resolv_conf: none() }, vec![self.address])
    }

    /// The number of questions.
    pub(crate) fn asked(&self) -> usize {
        self.zone.asked.lock().unwrap().values().sum()
    }
}

impl Drop for DnsServer {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

// === impl Zone ===

impl Zone {
    fn respond(&self, query: &[u8], over_tcp: bool) -> Option<Vec<u8>> {
        let query = Message::from_vec(query).unwrap();
        let asked = query.queries[0].clone();
        let (name, kind) = (asked.name().to_ascii().trim_end_matches('.').to_lowercase(), asked.query_type());
        let before = {
            let mut all = self.asked.lock().unwrap();
            let count = all.entry((name.clone(), kind)).or_default();
            *count += 1;
            *count - 1
        };
        let mut response = Message::response(query.metadata.id, OpCode::Query);
        response.metadata.recursion_desired = true;
        response.metadata.recursion_available = true;
        response.add_query(asked);
        match (self.answers)(&Question { name, kind, before }) {
            Answer::Silence => return None,
            Answer::Code(code) => response.metadata.response_code = code,
            Answer::OverTcp(_) if !over_tcp => response.metadata.truncation = true,
            Answer::Records(records) | Answer::OverTcp(records) => {
                response.add_answers(records);
            }
        }
        Some(response.to_vec().unwrap())
    }
}

/// Sockets for UDP and TCP with the same port.
async fn sockets() -> (UdpSocket, TcpListener) {
    for _ in 0..100 {
        let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()).await {
            return (udp, tcp);
        }
    }
    panic!("no port is free for both");
}

async fn serve_udp(socket: UdpSocket, zone: Arc<Zone>) {
    let mut query = [0; MAX_UDP];
    loop {
        let (length, client) = socket.recv_from(&mut query).await.unwrap();
        if let Some(response) = zone.respond(&query[..length], false) {
            // The client may be gone.
            let _ = socket.send_to(&response, client).await;
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the tasks end with the test")]
async fn serve_tcp(listener: TcpListener, zone: Arc<Zone>) {
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        let zone = zone.clone();
        tokio::spawn(async move {
            while let Ok(length) = stream.read_u16().await {
                let mut query = vec![0; length.into()];
                stream.read_exact(&mut query).await.unwrap();
                if let Some(response) = zone.respond(&query, true) {
                    stream.write_u16(response.len().try_into().unwrap()).await.unwrap();
                    stream.write_all(&response).await.unwrap();
                }
            }
        });
    }
}

pub(crate) fn address(name: &str, ttl: u32, address: IpAddr) -> Record {
    Record::from_rdata(absolute(name), ttl, address.into())
}

pub(crate) fn alias(name: &str, ttl: u32, target: &str) -> Record {
    Record::from_rdata(absolute(name), ttl, RData::CNAME(CNAME(absolute(target))))
}

fn absolute(name: &str) -> Name {
    Name::from_ascii(format!("{name}.")).unwrap()
}

/// The type of record for an address.
pub(crate) fn kind(address: IpAddr) -> RecordType {
    if address.is_ipv4() { RecordType::A } else { RecordType::AAAA }
}
