//! The classifier of addresses: which rule, if any, forbids to call one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

/// The rule that an address or a name breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rule {
    /// This machine.
    Loopback,
    /// "This network", and the address that says "no address".
    Unspecified,
    /// Networks of organisations (RFC 1918).
    Private,
    /// The network between customers and their carrier (RFC 6598).
    Shared,
    /// One link.
    LinkLocal,
    /// Services of a cloud that give credentials to every program that asks.
    Metadata,
    /// Assignments of IETF protocols, which are no hosts.
    Protocol,
    /// Texts and examples.
    Documentation,
    /// Benchmarks of networks.
    Benchmarking,
    /// Groups of hosts.
    Multicast,
    /// All hosts of a network.
    Broadcast,
    /// Addresses without a use.
    Reserved,
    /// Networks of organisations in IPv6 (RFC 4193).
    UniqueLocal,
    /// The predecessor of unique local addresses (RFC 3879).
    SiteLocal,
    /// Packets that are thrown away.
    Discard,
    /// IPv4 addresses in IPv6: a translator of the network would send the packet to the IPv4 address.
    Nat64,
    /// IPv4 addresses in IPv6: a relay would send the packet to the IPv4 address.
    SixToFour,
    /// IPv4 addresses in IPv6: a relay would send the packet to the IPv4 address.
    Teredo,
    /// IPv4 addresses in IPv6 in one of the forms that are out of use. Those of ISATAP (RFC 5214) have the prefix of any network, so they
    /// count only if the IPv4 address is forbidden.
    EmbeddedIpv4,
    /// Identifiers of segments (RFC 9602).
    SegmentRouting,
    /// A name that has a meaning only inside a machine or a network.
    LocalName,
}

const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)
}

const fn v6(head: [u16; 4], prefix: u8) -> Ipv6Net {
    let [a, b, c, d] = head;
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0), prefix)
}

const fn v6_host([a, b, c, d, e, f, g, h]: [u16; 8]) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, d, e, f, g, h), 128)
}

/// The IPv4 networks of the special-purpose registry of IANA (RFC 6890) that are not for everyone. The first match counts.
const IPV4: &[(Ipv4Net, Rule)] = &[
    (v4(169, 254, 169, 254, 32), Rule::Metadata), // most clouds
    (v4(169, 254, 170, 2, 32), Rule::Metadata),   // AWS, tasks
    (v4(169, 254, 170, 23, 32), Rule::Metadata),  // AWS, pods
    (v4(169, 254, 42, 42, 32), Rule::Metadata),   // Scaleway
    (v4(169, 254, 0, 23, 32), Rule::Metadata),    // Tencent
    (v4(169, 254, 10, 10, 32), Rule::Metadata),   // Tencent
    (v4(100, 100, 100, 200, 32), Rule::Metadata), // Alibaba
    (v4(192, 0, 0, 192, 32), Rule::Metadata),     // Oracle
    (v4(168, 63, 129, 16, 32), Rule::Metadata),   // Azure
    (v4(0, 0, 0, 0, 8), Rule::Unspecified),
    (v4(10, 0, 0, 0, 8), Rule::Private),
    (v4(100, 64, 0, 0, 10), Rule::Shared),
    (v4(127, 0, 0, 0, 8), Rule::Loopback),
    (v4(169, 254, 0, 0, 16), Rule::LinkLocal),
    (v4(172, 16, 0, 0, 12), Rule::Private),
    (v4(192, 0, 0, 0, 24), Rule::Protocol),
    (v4(192, 0, 2, 0, 24), Rule::Documentation),
    (v4(192, 88, 99, 0, 24), Rule::SixToFour),
    (v4(192, 168, 0, 0, 16), Rule::Private),
    (v4(198, 18, 0, 0, 15), Rule::Benchmarking),
    (v4(198, 51, 100, 0, 24), Rule::Documentation),
    (v4(203, 0, 113, 0, 24), Rule::Documentation),
    (v4(224, 0, 0, 0, 4), Rule::Multicast),
    (v4(255, 255, 255, 255, 32), Rule::Broadcast),
    (v4(240, 0, 0, 0, 4), Rule::Reserved),
];

/// As [`IPV4`]. At the end is all that is not global unicast (RFC 4291 2.4).
const IPV6: &[(Ipv6Net, Rule)] = &[
    (Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128), Rule::Loopback),
    (Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 128), Rule::Unspecified),
    (v6([0xfd00, 0xec2, 0, 0], 32), Rule::Metadata), // AWS
    (v6_host([0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254]), Rule::Metadata), // Google
    (v6_host([0xfd00, 0xc1, 0, 0, 0, 0, 0xa9fe, 0xa9fe]), Rule::Metadata), // Oracle
    (v6_host([0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42]), Rule::Metadata), // Scaleway
    (v6_host([0xfd00, 0xa9fe, 0xa9fe, 0, 0, 0, 0, 1]), Rule::Metadata), // Akamai
    (v6_host([0xfd00, 0x100, 0, 0, 0, 0, 0x100, 0x200]), Rule::Metadata), // Alibaba
    (v6_host([0xfe80, 0, 0, 0, 0, 0, 0xa9fe, 0xa9fe]), Rule::Metadata), // OpenStack
    (v6([0, 0, 0, 0], 64), Rule::EmbeddedIpv4),      // ::a.b.c.d, ::ffff:0:a.b.c.d, and ::ffff:a.b.c.d if not canonical
    (v6([0x64, 0xff9b, 0, 0], 96), Rule::Nat64),
    (v6([0x64, 0xff9b, 1, 0], 48), Rule::Nat64),
    (v6([0x100, 0, 0, 0], 64), Rule::Discard),
    (v6([0x100, 0, 0, 1], 64), Rule::Discard),
    (v6([0x2001, 0, 0, 0], 32), Rule::Teredo),
    (v6([0x2001, 2, 0, 0], 48), Rule::Benchmarking),
    (v6([0x2001, 0xdb8, 0, 0], 32), Rule::Documentation),
    (v6([0x2001, 0, 0, 0], 23), Rule::Protocol),
    (v6([0x2002, 0, 0, 0], 16), Rule::SixToFour),
    (v6([0x3fff, 0, 0, 0], 20), Rule::Documentation),
    (v6([0x5f00, 0, 0, 0], 16), Rule::SegmentRouting),
    (v6([0xfc00, 0, 0, 0], 7), Rule::UniqueLocal),
    (v6([0xfe80, 0, 0, 0], 10), Rule::LinkLocal),
    (v6([0xfec0, 0, 0, 0], 10), Rule::SiteLocal),
    (v6([0xff00, 0, 0, 0], 8), Rule::Multicast),
    (v6([0, 0, 0, 0], 3), Rule::Reserved),
    (v6([0x4000, 0, 0, 0], 2), Rule::Reserved),
    (v6([0x8000, 0, 0, 0], 1), Rule::Reserved),
];

// === impl Rule ===

impl Rule {
    /// Returns the rule that forbids an address. An IPv4 address that is mapped into IPv6 counts as the IPv4 address, because
    /// the system would call that.
    pub fn of(address: IpAddr) -> Option<Rule> {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::of_ipv4(address),
            IpAddr::V6(address) => {
                let listed = IPV6.iter().find(|(net, _)| net.contains(&address)).map(|(_, rule)| *rule);
                listed.or_else(|| isatap(address).and_then(Self::of_ipv4).map(|_| Rule::EmbeddedIpv4))
            }
        }
    }

    /// Returns all that is forbidden of an address: the address itself, and the IPv4 addresses to which it leads.
    pub fn all_of(address: IpAddr) -> Vec<(IpAddr, Rule)> {
        let address = address.to_canonical();
        let embedded = match address {
            IpAddr::V4(_) => Vec::new(),
            IpAddr::V6(address) => embedded(address),
        };
        let itself = Rule::of(address).map(|rule| (address, rule));
        let inside = embedded.into_iter().filter_map(|inner| Some((inner.into(), Self::of_ipv4(inner)?)));
        itself.into_iter().chain(inside).collect()
    }

    fn of_ipv4(address: Ipv4Addr) -> Option<Rule> {
        IPV4.iter().find(|(net, _)| net.contains(&address)).map(|(_, rule)| *rule)
    }

    /// The name of the rule, for errors and metrics. It does not change.
    pub fn as_str(self) -> &'static str {
        match self {
            Rule::Loopback => "loopback",
            Rule::Unspecified => "unspecified",
            Rule::Private => "private",
            Rule::Shared => "shared",
            Rule::LinkLocal => "link_local",
            Rule::Metadata => "metadata",
            Rule::Protocol => "protocol",
            Rule::Documentation => "documentation",
            Rule::Benchmarking => "benchmarking",
            Rule::Multicast => "multicast",
            Rule::Broadcast => "broadcast",
            Rule::Reserved => "reserved",
            Rule::UniqueLocal => "unique_local",
            Rule::SiteLocal => "site_local",
            Rule::Discard => "discard",
            Rule::Nat64 => "nat64",
            Rule::SixToFour => "6to4",
            Rule::Teredo => "teredo",
            Rule::EmbeddedIpv4 => "embedded_ipv4",
            Rule::SegmentRouting => "segment_routing",
            Rule::LocalName => "local_name",
        }
    }
}

/// The IPv4 address to which a router of ISATAP sends packets for an address: its interface identifier is `[02]00:5efe:a.b.c.d`
/// (RFC 5214 6.1), behind the prefix of any network.
fn isatap(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let [.., universal, tag, high, low] = address.segments();
    let bits = u32::from(high) << 16 | u32::from(low);
    (matches!(universal, 0 | 0x0200) && tag == 0x5efe).then(|| Ipv4Addr::from_bits(bits))
}

/// The IPv4 addresses to which packets for an address may be sent.
fn embedded(address: Ipv6Addr) -> Vec<Ipv4Addr> {
    let octets = address.octets();
    let at = |places: [usize; 4]| Ipv4Addr::from(places.map(|place| octets[place]));
    let end = at([12, 13, 14, 15]);
    let mut found: Vec<Ipv4Addr> = isatap(address).into_iter().collect();
    match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => {}
        [0, 0, 0, 0, ..] | [0x64, 0xff9b, 0, 0, 0, 0, ..] => found.push(end),
        [0x64, 0xff9b, 1, ..] => {
            found.push(end);
            // The prefix of the translator is unknown, and with it the place of the address. All but the last place leave out this octet
            // (RFC 6052 2.2).
            if octets[8] == 0 {
                let places = [at([6, 7, 9, 10]), at([7, 9, 10, 11]), at([9, 10, 11, 12])];
                found.extend(places.into_iter().filter(|place| place.octets()[0] != 0));
            }
        }
        [0x2001, 0, ..] => found.extend([at([4, 5, 6, 7]), Ipv4Addr::from_bits(!end.to_bits())]),
        [0x2002, ..] => found.push(at([2, 3, 4, 5])),
        _ => {}
    }
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rule(address: &str) -> Option<&'static str> {
        Rule::of(address.parse().unwrap()).map(Rule::as_str)
    }

    #[test]
    fn networks_end_where_the_registry_says() {
        for (address, expected) in [
            ("0.0.0.0", Some("unspecified")),
            ("0.255.255.255", Some("unspecified")),
            ("1.0.0.0", None),
            ("9.255.255.255", None),
            ("10.0.0.0", Some("private")),
            ("10.255.255.255", Some("private")),
            ("11.0.0.0", None),
            ("100.63.255.255", None),
            ("100.64.0.0", Some("shared")),
            ("100.100.100.200", Some("metadata")),
            ("100.127.255.255", Some("shared")),
            ("100.128.0.0", None),
            ("126.255.255.255", None),
            ("127.0.0.0", Some("loopback")),
            ("127.255.255.255", Some("loopback")),
            ("128.0.0.0", None),
            ("168.63.129.16", Some("metadata")),
            ("168.63.129.17", None),
            ("169.253.255.255", None),
            ("169.254.0.0", Some("link_local")),
            ("169.254.169.254", Some("metadata")),
            ("169.254.42.42", Some("metadata")),
            ("169.254.0.23", Some("metadata")),
            ("169.254.10.10", Some("metadata")),
            ("169.254.255.255", Some("link_local")),
            ("172.15.255.255", None),
            ("172.16.0.0", Some("private")),
            ("172.31.255.255", Some("private")),
            ("172.32.0.0", None),
            ("192.0.0.0", Some("protocol")),
            ("192.0.0.192", Some("metadata")),
            ("192.0.1.0", None),
            ("192.0.2.255", Some("documentation")),
            ("192.0.3.0", None),
            ("192.88.99.1", Some("6to4")),
            ("192.167.255.255", None),
            ("192.168.0.0", Some("private")),
            ("192.169.0.0", None),
            ("198.17.255.255", None),
            ("198.18.0.0", Some("benchmarking")),
            ("198.19.255.255", Some("benchmarking")),
            ("198.20.0.0", None),
            ("198.51.100.1", Some("documentation")),
            ("203.0.113.1", Some("documentation")),
            ("223.255.255.255", None),
            ("224.0.0.1", Some("multicast")),
            ("239.255.255.255", Some("multicast")),
            ("240.0.0.0", Some("reserved")),
            ("255.255.255.254", Some("reserved")),
            ("255.255.255.255", Some("broadcast")),
            ("::", Some("unspecified")),
            ("::1", Some("loopback")),
            ("::2", Some("embedded_ipv4")),
            ("::127.0.0.1", Some("embedded_ipv4")),
            ("::ffff:127.0.0.1", Some("loopback")),
            ("::ffff:169.254.169.254", Some("metadata")),
            ("::ffff:8.8.8.8", None),
            ("::ffff:0:8.8.8.8", Some("embedded_ipv4")),
            ("64:ff9b::8.8.8.8", Some("nat64")),
            ("64:ff9b:1::8.8.8.8", Some("nat64")),
            ("64:ff9b:2::", Some("reserved")),
            ("100::1", Some("discard")),
            ("100:0:0:1::1", Some("discard")),
            ("2000::", None),
            ("2001::1", Some("teredo")),
            ("2001:2::1", Some("benchmarking")),
            ("2001:20::1", Some("protocol")),
            ("2001:1ff:ffff::", Some("protocol")),
            ("2001:200::", None),
            ("2001:db7:ffff::", None),
            ("2001:db8::1", Some("documentation")),
            ("2001:db9::", None),
            ("2001:4860:4860::8888", None),
            ("2001:4860::5efe:7f00:1", Some("embedded_ipv4")),
            ("2a00:1:2:3:200:5efe:169.254.169.254", Some("embedded_ipv4")),
            ("2a00:1:2:3:200:5efe:8.8.8.8", None),
            ("2a00:1:2:3:100:5efe:10.0.0.1", None),
            ("2a00:1:2:3:0:5eff:10.0.0.1", None),
            ("fe80::5efe:8.8.8.8", Some("link_local")),
            ("2002:7f00:1::", Some("6to4")),
            ("2003::", None),
            ("3fff::1", Some("documentation")),
            ("3fff:1000::", None),
            ("4000::", Some("reserved")),
            ("5f00::1", Some("segment_routing")),
            ("fc00::", Some("unique_local")),
            ("fd00:ec2::254", Some("metadata")),
            ("fd00:ec2:ffff::1", Some("metadata")),
            ("fd00:ec3::254", Some("unique_local")),
            ("fd20:ce::254", Some("metadata")),
            ("fd00:c1::a9fe:a9fe", Some("metadata")),
            ("fd00:42::42", Some("metadata")),
            ("fd00:a9fe:a9fe::1", Some("metadata")),
            ("fd00:100::100:200", Some("metadata")),
            ("fe80::a9fe:a9fe", Some("metadata")),
            ("fdff::1", Some("unique_local")),
            ("fe00::1", Some("reserved")),
            ("fe80::1", Some("link_local")),
            ("fec0::1", Some("site_local")),
            ("ff02::1", Some("multicast")),
        ] {
            assert_eq!(rule(address), expected, "{address}");
        }
    }

    #[test]
    fn addresses_that_lead_to_ipv4_are_judged_by_it_as_well() {
        for (address, inner, expected) in [
            ("64:ff9b::a9fe:a9fe", "169.254.169.254", "metadata"),
            ("64:ff9b::7f00:1", "127.0.0.1", "loopback"),
            ("64:ff9b:1:2:3:4:10.0.0.1", "10.0.0.1", "private"),
            ("64:ff9b:1:a00:0:100::", "10.0.0.1", "private"),
            ("64:ff9b:1:20a:0:1::", "10.0.0.1", "private"),
            ("64:ff9b:1:2:a:0:100:0", "10.0.0.1", "private"),
            ("64:ff9b:1:a9fe:a9:fe00:808:808", "169.254.169.254", "metadata"),
            ("64:ff9b:1::a00:0", "10.0.0.0", "private"),
            ("2002:a00:1::1", "10.0.0.1", "private"),
            ("2001:0:7f00:1:0:0:f7f7:f7f7", "127.0.0.1", "loopback"),
            ("2001:0:808:808:0:0:5601:5601", "169.254.169.254", "metadata"),
            ("::169.254.169.254", "169.254.169.254", "metadata"),
            ("::ffff:0:127.0.0.1", "127.0.0.1", "loopback"),
            ("fd12::5efe:169.254.169.254", "169.254.169.254", "metadata"),
            ("2002:808:808:1:200:5efe:10.0.0.1", "10.0.0.1", "private"),
        ] {
            let all = Rule::all_of(address.parse().unwrap());
            let inside: Vec<_> = all[1..].iter().map(|(inner, rule)| (inner.to_string(), rule.as_str())).collect();
            assert!(inside.contains(&(inner.to_owned(), expected)), "{address}: {all:?}");
        }
        for address in ["64:ff9b::8.8.8.8", "2002:808:808::1", "fd12::5efe:8.8.8.8", "10.0.0.1"] {
            assert_eq!(Rule::all_of(address.parse().unwrap()).len(), 1, "{address}");
        }
        assert!(Rule::all_of("2001:4860:4860::8888".parse().unwrap()).is_empty());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]

        /// The standard library decides for the kinds of address that it knows.
        #[test]
        fn ipv4_agrees_with_the_standard_library(
            bits in any::<u32>(),
            near in 0..IPV4.len(),
            offset in -2i64..=2,
            prefix in any::<[u16; 4]>(),
        ) {
            let end = i64::from(u32::from(IPV4[near].0.broadcast()));
            for address in [Ipv4Addr::from(bits), Ipv4Addr::from((end + offset).rem_euclid(1 << 32) as u32)] {
                let known = address.is_private() || address.is_loopback() || address.is_link_local()
                    || address.is_broadcast() || address.is_documentation() || address.is_multicast()
                    || address.octets()[0] == 0 || address.octets()[0] >= 240;
                prop_assert!(!known || Rule::of(address.into()).is_some(), "{address}");
                // No form of the address in IPv6 is milder than the address itself.
                prop_assert_eq!(Rule::of(address.to_ipv6_mapped().into()), Rule::of(address.into()));
                let [a, b, c, d] = address.octets().map(u16::from);
                let (high, low) = (a << 8 | b, c << 8 | d);
                for embedded in [
                    Ipv6Addr::new(0, 0, 0, 0, 0, 0, high, low),
                    Ipv6Addr::new(0, 0, 0, 0, 0xffff, 0, high, low),
                    Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low),
                    Ipv6Addr::new(0x64, 0xff9b, 1, 0, 0, 0, high, low),
                    Ipv6Addr::new(0x2002, high, low, 0, 0, 0, 0, 1),
                    Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, !high, !low),
                ] {
                    prop_assert!(Rule::of(embedded.into()).is_some(), "{embedded}");
                }
                // These have the prefix of any network, so they are as good as the address.
                let [p, q, r, s] = prefix;
                for p in [p, p & 0x1fff | 0x2000, 0x2a00] {
                    let native = Rule::of(Ipv6Addr::new(p, q, r, s, 0, 1, high, low).into());
                    for universal in [0, 0x0200] {
                        let embedded = Ipv6Addr::new(p, q, r, s, universal, 0x5efe, high, low).into();
                        let refused = Rule::of(address.into()).is_some() || native.is_some();
                        prop_assert_eq!(Rule::of(embedded).is_some(), refused, "{}", embedded);
                    }
                }
            }
        }

        /// Only global unicast (2000::/3) is ever permitted.
        #[test]
        fn ipv6_is_refused_outside_of_global_unicast(bits in any::<u128>()) {
            let address = Ipv6Addr::from(bits);
            let refused = Rule::of(address.into()).is_some();
            prop_assert!(refused || address.segments()[0] & 0xe000 == 0x2000, "{address}");
            let known = address.is_loopback() || address.is_unspecified() || address.is_multicast()
                || address.is_unique_local() || address.is_unicast_link_local();
            prop_assert!(!known || refused, "{address}");
        }
    }
}
