//! The resolution of names. No look-up blocks a thread, and each ends when its caller leaves.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hickory_resolver::config::{LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError, NoRecords};
use hickory_resolver::proto::op::{Query, ResponseCode};
use hickory_resolver::proto::rr::{Name, RecordType};
use hickory_resolver::system_conf::parse_resolv_conf;
use hickory_resolver::{Hosts, TokioResolver};
use jackfield_domain::kek::BoxFuture;

/// A source of addresses. It is asked once for each connection, and its answer is dialled as it is.
pub trait Resolver: Send + Sync + 'static {
    /// Finds all addresses of a name. An empty answer is that there are none.
    fn resolve<'a>(&'a self, name: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>>;
}

/// The resolver of a machine: its hosts file, then its name servers. Changes of its files are noticed within a second.
#[derive(Debug, Default)]
pub struct SystemResolver {
    files: Files,
    /// Name servers in place of those of the machine, if there are any.
    name_servers: Vec<SocketAddr>,
    current: Mutex<Option<Current>>,
}

/// The files that say how a machine resolves names.
#[derive(Clone, Debug)]
pub struct Files {
    /// The addresses of some names: hosts(5).
    pub hosts: PathBuf,
    /// The name servers: resolv.conf(5).
    pub resolv_conf: PathBuf,
}

/// The sources as they were read, and the state of the files then.
#[derive(Debug)]
struct Current {
    stamps: [Option<Stamp>; 2],
    checked: Instant,
    sources: Arc<Sources>,
}

#[derive(Debug)]
struct Sources {
    hosts: Hosts,
    dns: TokioResolver,
}

/// The state of a file.
#[derive(Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    /// Seconds and nanoseconds.
    changed: (i64, i64),
}

/// The time after which the files are looked at again.
const RECHECK: Duration = Duration::from_secs(1);
/// The longest time that addresses are kept, whatever their name server says.
const MAX_TTL: Duration = Duration::from_secs(60);
/// The longest time that a name is remembered to have no address.
const MAX_NEGATIVE_TTL: Duration = Duration::from_secs(5);
/// The most answers that are kept. An answer has 64 KiB at most.
const MAX_ANSWERS: u64 = 1024;
/// The most queries at a time on a connection to a name server.
const MAX_QUERIES: usize = 1024;
/// The name server if resolv.conf(5) has none.
const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const DNS_PORT: u16 = 53;

// === impl SystemResolver ===

impl SystemResolver {
    /// Makes a resolver that asks these name servers, or those of the machine if there are none.
    pub fn new(files: Files, name_servers: Vec<SocketAddr>) -> Self {
        SystemResolver { files, name_servers, current: Mutex::default() }
    }

    /// The sources. They are made once more if a file has changed, without the answers that were kept.
    fn sources(&self) -> io::Result<Arc<Sources>> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(current) = &*current
            && current.checked.elapsed() < RECHECK
        {
            return Ok(current.sources.clone());
        }
        let stamps = [Stamp::of(&self.files.hosts), Stamp::of(&self.files.resolv_conf)];
        let sources = match &*current {
            Some(current) if current.stamps == stamps => current.sources.clone(),
            _ => Arc::new(self.read()?),
        };
        *current = Some(Current { stamps, checked: Instant::now(), sources: sources.clone() });
        Ok(sources)
    }

    fn read(&self) -> io::Result<Sources> {
        let mut hosts = Hosts::default();
        match fs::File::open(&self.files.hosts) {
            Ok(file) => hosts.read_hosts_conf(file)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let (config, mut options) = match &self.name_servers[..] {
            [] => self.of_machine()?,
            servers => (config_of(servers), ResolverOpts::default()),
        };
        // All addresses of a name are checked, so both types are asked for. If only one of the two is answered, its addresses are used: a name
        // server that cannot tell the others does not keep users out.
        options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        options.use_hosts_file = ResolveHosts::Never;
        options.positive_max_ttl = Some(MAX_TTL);
        options.negative_max_ttl = Some(MAX_NEGATIVE_TTL);
        options.cache_size = MAX_ANSWERS;
        options.max_active_requests = MAX_QUERIES;
        let builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        let builder = builder.with_options(options);
        Ok(Sources { hosts, dns: builder.build().map_err(io::Error::other)? })
    }

    /// The name servers of the machine. Without one, there is one on the machine itself.
    fn of_machine(&self) -> io::Result<(ResolverConfig, ResolverOpts)> {
        let text = match fs::read(&self.files.resolv_conf) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            read => read?,
        };
        Ok(parse_resolv_conf(text)
            .unwrap_or_else(|_| (config_of(&[SocketAddr::new(LOCAL, DNS_PORT)]), ResolverOpts::default())))
    }
}

impl Resolver for SystemResolver {
    fn resolve<'a>(&'a self, name: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>> {
        Box::pin(async move {
            let name = Name::from_ascii(name).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
            let sources = self.sources()?;
            let of_hosts = sources.of_hosts(&name);
            if !of_hosts.is_empty() {
                return Ok(of_hosts);
            }
            match sources.dns.lookup_ip(name.clone()).await {
                Ok(found) => Ok(found.iter().collect()),
                // That is about IPv4 alone: the look-up for IPv6 may have failed.
                Err(error) if is_absence(&error) => match sources.dns.lookup(name, RecordType::AAAA).await {
                    Ok(found) => Ok(found.answers().iter().filter_map(|record| record.data.ip_addr()).collect()),
                    Err(error) if is_absence(&error) => Ok(Vec::new()),
                    Err(error) => Err(io::Error::other(error)),
                },
                Err(error) => Err(io::Error::other(error)),
            }
        })
    }
}

// === impl Sources ===

impl Sources {
    /// The addresses of a name in the hosts file. If it has one, no name server is asked for others.
    fn of_hosts(&self, name: &Name) -> Vec<IpAddr> {
        let of_type = |kind| self.hosts.lookup_static_host(&Query::query(name.clone(), kind));
        let found = [RecordType::A, RecordType::AAAA].into_iter().filter_map(of_type);
        found
            .flat_map(|found| found.answers().iter().filter_map(|record| record.data.ip_addr()).collect::<Vec<_>>())
            .collect()
    }
}

// === impl Files ===

impl Default for Files {
    fn default() -> Self {
        Files { hosts: "/etc/hosts".into(), resolv_conf: "/etc/resolv.conf".into() }
    }
}

// === impl Stamp ===

impl Stamp {
    /// The state of a file now. `None`: there is none.
    fn of(path: &Path) -> Option<Self> {
        let metadata = fs::metadata(path).ok()?;
        let changed = (metadata.ctime(), metadata.ctime_nsec());
        Some(Stamp { device: metadata.dev(), inode: metadata.ino(), size: metadata.size(), changed })
    }
}

/// Returns true if a name server has answered that there are no such records.
fn is_absence(error: &NetError) -> bool {
    let NetError::Dns(DnsError::NoRecordsFound(NoRecords { response_code, .. })) = error else { return false };
    matches!(*response_code, ResponseCode::NoError | ResponseCode::NXDomain)
}

/// Reads the address of a name server, with a port unless it is 53.
pub fn name_server(text: &str) -> Option<SocketAddr> {
    let address = text.parse().map(|address| SocketAddr::new(address, DNS_PORT));
    address.or_else(|_| text.parse()).ok()
}

fn config_of(servers: &[SocketAddr]) -> ResolverConfig {
    let servers = servers.iter().map(|server| {
        let mut config = NameServerConfig::udp_and_tcp(server.ip());
        config.connections.iter_mut().for_each(|connection| connection.port = server.port());
        config
    });
    ResolverConfig::from_parts(None, Vec::new(), servers.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolv_conf_says_how_the_machine_resolves() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("resolv.conf");
        let resolver = SystemResolver::new(Files { resolv_conf: path.clone(), ..Files::default() }, Vec::new());
        let read = || {
            let (config, options) = resolver.of_machine().unwrap();
            let servers: Vec<_> = config.name_servers().iter().map(|server| server.ip.to_string()).collect();
            let search: Vec<_> = config.search().iter().map(Name::to_ascii).collect();
            (servers.join(" "), search.join(" "), options.ndots)
        };
        let local = ("127.0.0.1".to_owned(), String::new(), 1);
        assert_eq!(read(), local, "there is no such file");
        fs::write(
            &path,
            "nameserver 10.0.0.53\nnameserver 2001:db8::53\nsearch a.example b.example\noptions ndots:5\n",
        )
        .unwrap();
        assert_eq!(read(), ("10.0.0.53 2001:db8::53".to_owned(), "a.example b.example".to_owned(), 5));
        fs::write(&path, "# nothing\n").unwrap();
        assert_eq!(read(), local);
    }

    #[tokio::test]
    async fn changed_files_are_read_again() {
        let directory = tempfile::tempdir().unwrap();
        let files = Files { hosts: directory.path().join("hosts"), resolv_conf: directory.path().join("resolv.conf") };
        let resolver = SystemResolver::new(files.clone(), Vec::new());
        let first = resolver.sources().unwrap();
        fs::write(&files.resolv_conf, "nameserver 10.0.0.53\n").unwrap();
        assert!(Arc::ptr_eq(&first, &resolver.sources().unwrap()), "files are not looked at for each call");
        tokio::time::sleep(RECHECK).await;
        let second = resolver.sources().unwrap();
        assert!(!Arc::ptr_eq(&first, &second), "the file is new");
        tokio::time::sleep(RECHECK).await;
        assert!(Arc::ptr_eq(&second, &resolver.sources().unwrap()), "nothing has changed");
    }

    #[test]
    fn name_servers_are_addresses() {
        for (text, expected) in [
            ("10.0.0.53", Some("10.0.0.53:53")),
            ("10.0.0.53:5353", Some("10.0.0.53:5353")),
            ("2001:db8::53", Some("[2001:db8::53]:53")),
            ("[2001:db8::53]:5353", Some("[2001:db8::53]:5353")),
            ("ns.example.com", None),
            ("10.0.0.53:", None),
            ("10.0.0.53:99999", None),
            ("", None),
        ] {
            assert_eq!(name_server(text).map(|server| server.to_string()).as_deref(), expected, "{text:?}");
        }
    }
}
