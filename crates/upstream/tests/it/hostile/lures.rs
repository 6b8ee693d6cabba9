//! URLs that lead to a forbidden address, and the answers of the name server that helps them.

use std::net::{IpAddr, Ipv4Addr};

use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::Record;

use crate::dns::{Answer, Question, address, alias, kind};

/// Addresses that are disguised in the text of a URL.
pub(super) const DISGUISED: [&str; 20] = [
    "127.0.0.1",
    "127.8.9.1",
    "0.0.0.0",
    "10.0.0.1",
    "10.255.255.254",
    "172.16.0.1",
    "172.31.255.254",
    "192.168.0.1",
    "192.168.255.254",
    "100.64.0.1",
    "100.100.100.200",
    "169.254.0.1",
    "169.254.169.254",
    "168.63.129.16",
    "192.0.0.192",
    "192.0.2.1",
    "192.88.99.1",
    "198.18.0.1",
    "224.0.0.1",
    "255.255.255.255",
];
/// Those of this machine.
pub(super) const OWN: [&str; 3] = ["127.0.0.1", "127.8.9.1", "0.0.0.0"];

/// Addresses that a name server answers with.
pub(super) const ADDRESSES: [&str; 18] = [
    "127.0.0.1",
    "127.8.9.1",
    "0.0.0.0",
    "10.0.0.1",
    "192.168.0.1",
    "100.64.0.1",
    "169.254.169.254",
    "255.255.255.255",
    "::1",
    "::",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "64:ff9b::7f00:1",
    "2002:7f00:1::1",
    "2a00:1::5efe:7f00:1",
    "2a00:1::200:5efe:a9fe:a9fe",
    "fd00:ec2::254",
    "fe80::1",
];

/// The address of a host that may be called. It stands for the public ones, and is on this machine.
pub(super) const PUBLIC: &str = "127.0.0.2";

/// A way in which a name leads to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lure {
    Direct,
    /// Behind a public address.
    MixedLast,
    /// Before a public address.
    MixedFirst,
    /// An alias, with the addresses of its target.
    Alias,
    /// An alias whose target has to be asked for.
    AliasAlone,
    /// Several aliases.
    Chain,
    /// The answer is too long for UDP.
    OverTcp,
    /// The answer is public at first.
    Rebinding,
    /// An alias of this machine.
    Local,
}

pub(super) const LURES: [Lure; 9] = [
    Lure::Direct,
    Lure::MixedLast,
    Lure::MixedFirst,
    Lure::Alias,
    Lure::AliasAlone,
    Lure::Chain,
    Lure::OverTcp,
    Lure::Rebinding,
    Lure::Local,
];

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const ZONE: &str = "hostile.example";

// === impl Lure ===

impl Lure {
    /// A URL whose name leads to an address.
    pub(super) fn url(self, address: IpAddr, label: &str, port: u16) -> String {
        let address = match address {
            IpAddr::V4(address) => format!("{:08x}", u32::from(address)),
            IpAddr::V6(address) => format!("{:032x}", u128::from(address)),
        };
        let lure = format!("{self:?}").to_lowercase();
        format!("https://{label}.{address}.{lure}.{ZONE}:{port}/latest/meta-data")
    }

    /// The address that is dialled first, where the policy allows all.
    pub(super) fn dialled(self, address: IpAddr) -> IpAddr {
        match self {
            Lure::Local => LOOPBACK,
            Lure::MixedLast | Lure::Rebinding => PUBLIC.parse().unwrap(),
            // IPv4 addresses come first.
            Lure::MixedFirst if address.is_ipv6() => PUBLIC.parse().unwrap(),
            _ => address.to_canonical(),
        }
    }
}

/// The answers of the name server.
pub(super) fn answer(question: &Question) -> Answer {
    let Question { name, kind: asked, before } = question;
    let of_type = |name: &str, addresses: &[IpAddr], ttl| -> Vec<Record> {
        let found = addresses.iter().filter(|found| kind(**found) == *asked);
        found.map(|found| address(name, ttl, *found)).collect()
    };
    let public: IpAddr = PUBLIC.parse().unwrap();
    if name == "moved.example" {
        return Answer::Records(of_type(name, &[LOOPBACK], 300));
    }
    if name.ends_with("login.example") {
        return Answer::Records(of_type(name, &[public, LOOPBACK], 300));
    }
    let Some((lure, found)) = parse(name) else { return Answer::Code(ResponseCode::NXDomain) };
    let target = format!("target.{name}").replace(&format!("{lure:?}").to_lowercase(), "direct");
    Answer::Records(match lure {
        Lure::Direct => of_type(name, &[found], 300),
        Lure::MixedLast => of_type(name, &[public, found], 300),
        Lure::MixedFirst => of_type(name, &[found, public], 300),
        Lure::Alias => [vec![alias(name, 300, &target)], of_type(&target, &[found], 300)].concat(),
        Lure::AliasAlone => vec![alias(name, 300, &target)],
        Lure::Chain => {
            let names: Vec<_> = (0..4).map(|step| format!("{step}.{target}")).collect();
            let steps = names.windows(2).map(|pair| alias(&pair[0], 300, &pair[1]));
            let last = of_type(&names[3], &[found], 300);
            std::iter::once(alias(name, 300, &names[0])).chain(steps).chain(last).collect()
        }
        Lure::OverTcp => return Answer::OverTcp(of_type(name, &[found], 300)),
        Lure::Rebinding => of_type(name, &[if before % 2 == 0 { public } else { found }], 0),
        Lure::Local => vec![alias(name, 300, "localhost")],
    })
}

/// The lure and the address of a name.
fn parse(name: &str) -> Option<(Lure, IpAddr)> {
    let labels: Vec<_> = name.strip_suffix(ZONE)?.trim_end_matches('.').rsplit('.').collect();
    let [lure, address, ..] = labels[..] else { return None };
    let lure = LURES.into_iter().find(|known| format!("{known:?}").eq_ignore_ascii_case(lure))?;
    let address = match address.len() {
        8 => IpAddr::from(u32::from_str_radix(address, 16).ok()?.to_be_bytes()),
        _ => IpAddr::from(u128::from_str_radix(address, 16).ok()?.to_be_bytes()),
    };
    Some((lure, address))
}

/// Every form of a host that some parser takes for this address, and names that resolve to a forbidden one.
pub(super) fn disguises(address: Ipv4Addr) -> Vec<String> {
    let number = u32::from(address);
    let [a, b, c, d] = address.octets();
    let (high, low) = (number >> 16, number & 0xffff);
    let digits = |zero: u32| -> String {
        let digit = |c: char| c.to_digit(10).map_or(c, |digit| char::from_u32(zero + digit).unwrap());
        address.to_string().chars().map(digit).collect()
    };
    let text = address.to_string();
    vec![
        text.clone(),
        format!("{number}"),
        format!("{number:#x}"),
        format!("0{number:o}"),
        format!("0{a:o}.0{b:o}.0{c:o}.0{d:o}"),
        format!("{a:#x}.{b:#x}.{c:#x}.{d:#x}"),
        format!("000{a:o}.{b}.{c:#X}.{d}"),
        format!("{a}.{}", number & 0xff_ffff),
        format!("{a}.{b}.{low}"),
        format!("{text}."),
        text.replace('.', "。"),
        text.replacen(&text[..1], &format!("%3{}", &text[..1]), 1),
        digits(0xff10),
        digits(0x1d7d8),
        format!("[::ffff:{text}]"),
        format!("[::ffff:{high:x}:{low:x}]"),
        format!("[0:0:0:0:0:ffff:{high:x}:{low:x}]"),
        format!("[::{text}]"),
        format!("[::ffff:0:{text}]"),
        format!("[64:ff9b::{text}]"),
        format!("[64:ff9b:1::{text}]"),
        format!("[2002:{high:x}:{low:x}::1]"),
        format!("[2a00:1::5efe:{high:x}:{low:x}]"),
        format!("[2a00:1::200:5efe:{high:x}:{low:x}]"),
        format!("[2001::{:x}:{:x}]", !high & 0xffff, !low & 0xffff),
        format!("login.example@{text}"),
        format!("login.example:443@{text}"),
        format!("login.example\\@{text}"),
        format!("{text}#@login.example"),
        format!("{text}%00.login.example"),
        format!("{text}.login.example"),
        "localhost".to_owned(),
        "LOCALHOST.".to_owned(),
        "a.localhost".to_owned(),
        "ｌocalhost".to_owned(),
        "login.example".to_owned(),
        "l\u{43e}gin.example".to_owned(),
    ]
}
