use super::*;

fn check(policy: &Policy, url: &str) -> Result<Target, Refusal> {
    policy.check_url(&HttpUrl::parse("url", url, 2048).expect(url))
}

fn refused(policy: &Policy, url: &str) -> Refusal {
    check(policy, url).expect_err(url)
}

fn addresses(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

#[test]
fn public_hosts_are_permitted() {
    let policy = Policy::default();
    for (url, authority, path) in [
        ("https://login.example.com", "login.example.com", "/"),
        ("HTTPS://Login.Example.COM/a?b=c", "login.example.com", "/a?b=c"),
        ("https://login.example.com:443/", "login.example.com", "/"),
        ("https://login.example.com:8443/x", "login.example.com:8443", "/x"),
        ("https://xn--bcher-kva.example/", "xn--bcher-kva.example", "/"),
        ("https://8.8.8.8/", "8.8.8.8", "/"),
        ("https://[2001:4860:4860::8888]:9443/", "[2001:4860:4860::8888]:9443", "/"),
        ("https://a_b.example/", "a_b.example", "/"),
    ] {
        let target = check(&policy, url).expect(url);
        assert_eq!((target.authority().as_str(), target.path_and_query().as_str()), (authority, path), "{url}");
    }
}

#[test]
fn hosts_in_other_forms_are_refused_with_the_form_that_is_used() {
    let policy = Policy::default();
    for (url, used) in [
        ("https://2130706433/", "127.0.0.1"),
        ("https://0x7f000001/", "127.0.0.1"),
        ("https://017700000001/", "127.0.0.1"),
        ("https://0177.0.0.1/", "127.0.0.1"),
        ("https://0x7f.0.0.1/", "127.0.0.1"),
        ("https://127.1/", "127.0.0.1"),
        ("https://127.0.0.1./", "127.0.0.1"),
        ("https://169.254.43518/", "169.254.169.254"),
        ("https://１２７.０.０.１/", "127.0.0.1"),
        ("https://127。0。0。1/", "127.0.0.1"),
        ("https://%31%32%37.0.0.1/", "127.0.0.1"),
        ("https://①②⑦.0.0.1/", "127.0.0.1"),
        ("https://[0:0:0:0:0:0:0:1]/", "[::1]"),
        ("https://[::ffff:127.0.0.1]/", "[::ffff:7f00:1]"),
        ("https://[::127.0.0.1]/", "[::7f00:1]"),
        ("https://\u{430}pple.example/", "xn--pple-43d.example"),
        ("https://ｌogin.example/", "login.example"),
        ("https://lo\u{ad}calhost.example/", "localhost.example"),
        ("https://bücher.example/", "xn--bcher-kva.example"),
        ("https://ex%61mple.com/", "example.com"),
    ] {
        // Some do not even pass the domain, which refuses invisible characters.
        if let Ok(parsed) = HttpUrl::parse("url", url, 2048) {
            let expected = Refusal::Url(UrlFault::HostForm(used.to_owned()));
            assert_eq!(policy.check_url(&parsed), Err(expected), "{url}");
        }
    }
}

#[test]
fn urls_that_cannot_be_called_are_refused_with_the_reason() {
    let policy = Policy::default();
    let long = format!("https://{}.example/", "a".repeat(64));
    for (url, expected) in [
        ("http://example.com/", UrlFault::PlainHttp),
        ("http://localhost/", UrlFault::PlainHttp),
        ("https://example.com./", UrlFault::TrailingDot),
        ("https://localhost./", UrlFault::TrailingDot),
        ("https://a..example/", UrlFault::HostName),
        ("https://a!b.example/", UrlFault::HostName),
        (long.as_str(), UrlFault::HostName),
        ("https://example.com:0/", UrlFault::Port { port: 0, usual: 443 }),
        ("https://example.com:22/", UrlFault::Port { port: 22, usual: 443 }),
        ("https://example.com:80/", UrlFault::Port { port: 80, usual: 443 }),
        ("https://example.com:1023/", UrlFault::Port { port: 1023, usual: 443 }),
    ] {
        assert_eq!(refused(&policy, url), Refusal::Url(expected), "{url}");
    }
    assert!(check(&policy.clone().allow_port(22), "https://example.com:22/").is_ok());
    let zero = Refusal::Url(UrlFault::Port { port: 0, usual: 443 });
    assert_eq!(refused(&policy.allow_port(0), "https://example.com:0/"), zero);
}

#[test]
fn the_usual_port_is_that_of_the_scheme() {
    let policy = Policy::default().with_development();
    let proxy = |policy: &Policy, url: &str| policy.check_proxy_url(&HttpUrl::parse("url", url, 2048).unwrap());
    for url in ["https://example.com:443/", "http://localhost:80/", "http://localhost:1024/"] {
        assert!(check(&policy, url).is_ok(), "{url}");
    }
    for url in ["http://proxy.example/", "http://proxy.example:80/", "http://proxy.example:1024/"] {
        assert!(proxy(&policy, url).is_ok(), "{url}");
    }
    let refusal = |port, usual| format!("port {port} is not permitted: use {usual}, or 1024 and above");
    for (refused, expected) in [
        (check(&policy, "https://example.com:80/"), refusal(80, 443)),
        (check(&policy, "http://localhost:443/"), refusal(443, 80)),
        (check(&policy, "http://localhost:0/"), refusal(0, 80)),
        (proxy(&policy, "http://proxy.example:443"), refusal(443, 80)),
        (proxy(&policy, "http://proxy.example:1023"), refusal(1023, 80)),
        (proxy(&policy, "http://proxy.example:0"), refusal(0, 80)),
    ] {
        assert_eq!(refused.unwrap_err().to_string(), expected);
    }
    let policy = policy.allow_port(443);
    assert!(check(&policy, "http://localhost:443/").is_ok() && proxy(&policy, "http://proxy.example:443").is_ok());
}

#[test]
fn literal_addresses_are_checked_with_the_url() {
    let policy = Policy::default();
    for (url, rule) in [
        ("https://127.0.0.1/", Rule::Loopback),
        ("https://[::1]/", Rule::Loopback),
        ("https://[::ffff:7f00:1]/", Rule::Loopback),
        ("https://10.1.2.3/", Rule::Private),
        ("https://169.254.169.254/latest/meta-data", Rule::Metadata),
        ("https://[64:ff9b::a9fe:a9fe]/", Rule::Nat64),
        ("https://[2002:7f00:1::]/", Rule::SixToFour),
        ("https://[2a00::5efe:a00:1]/", Rule::EmbeddedIpv4),
        ("https://[fd00::1]/", Rule::UniqueLocal),
        ("https://0.0.0.0/", Rule::Unspecified),
    ] {
        let refusal = refused(&policy, url);
        assert!(matches!(refusal, Refusal::Address { rule: r, .. } if r == rule), "{url}: {refusal:?}");
        assert!(refusal.to_string().contains(rule.as_str()), "{refusal}");
    }
}

#[test]
fn one_forbidden_address_refuses_a_name() {
    let policy = Policy::default();
    let target = check(&policy, "https://login.example.com/").unwrap();
    assert_eq!(policy.check_addresses(&target, &addresses(&["8.8.8.8", "2001:4860::1"])), Ok(()));
    let refusal = policy.check_addresses(&target, &addresses(&["8.8.8.8", "10.0.0.1"])).unwrap_err();
    assert_eq!(refusal, Refusal::Address { rule: Rule::Private, address: "10.0.0.1".parse().unwrap() });
    assert!(!refusal.to_string().contains("10.0"), "{refusal}");
}

#[test]
fn the_operator_allows_hosts_and_ranges() {
    let policy = Policy::default();
    let policy = policy.allow("10.1.0.0/16").and_then(|policy| policy.allow("Vault.corp.example"));
    let policy = policy.and_then(|policy| policy.allow("169.254.0.0/16")).unwrap();
    assert!(check(&policy, "https://10.1.2.3/").is_ok());
    assert!(check(&policy, "https://[::ffff:a01:203]/").is_ok());
    assert!(check(&policy, "https://10.2.0.1/").is_err());
    let named = |url| check(&policy, url).unwrap();
    let private = addresses(&["192.168.1.1"]);
    assert_eq!(policy.check_addresses(&named("https://vault.corp.example/"), &private), Ok(()));
    assert!(policy.check_addresses(&named("https://a.vault.corp.example/"), &private).is_err());
    // A range and a name do not include metadata addresses.
    let metadata = addresses(&["169.254.169.254"]);
    assert!(policy.check_addresses(&named("https://vault.corp.example/"), &metadata).is_err());
    assert!(check(&policy, "https://169.254.1.1/").is_ok() && check(&policy, "https://169.254.169.254/").is_err());
    let policy = policy.allow("169.254.169.254").unwrap();
    assert!(check(&policy, "https://169.254.169.254/").is_ok());
}

/// The packets go to the IPv4 address in the end.
#[test]
fn a_range_of_ipv6_does_not_include_the_ipv4_addresses_to_which_it_leads() {
    let entries = ["64:ff9b::/96", "2002::/16", "fd12::/16", "gateway.example.com"];
    let policy = entries.into_iter().try_fold(Policy::default(), |policy, entry| policy.allow(entry)).unwrap();
    for url in [
        "https://[64:ff9b::808:808]/",
        "https://[2002:808:808::1]/",
        "https://[fd12::1]/",
        "https://[fd12::5efe:808:808]/",
    ] {
        assert!(check(&policy, url).is_ok(), "{url}");
    }
    for (url, rule) in [
        ("https://[64:ff9b::a9fe:a9fe]/", Rule::Metadata),
        ("https://[64:ff9b::7f00:1]/", Rule::Loopback),
        ("https://[64:ff9b::a00:1]/", Rule::Private),
        ("https://[2002:a00:1::1]/", Rule::Private),
        ("https://[fd12::200:5efe:7f00:1]/", Rule::Loopback),
    ] {
        let refusal = refused(&policy, url);
        assert!(matches!(refusal, Refusal::Address { rule: r, .. } if r == rule), "{url}: {refusal:?}");
    }
    let gateway = check(&policy, "https://gateway.example.com/").unwrap();
    assert_eq!(policy.check_addresses(&gateway, &addresses(&["64:ff9b:1::a00:1"])), Ok(()));
    assert!(policy.check_addresses(&gateway, &addresses(&["64:ff9b::a9fe:a9fe"])).is_err());
    assert!(policy.check_addresses(&gateway, &addresses(&["2a00::5efe:a9fe:a9fe"])).is_err());
    // Both are allowed, or this address alone.
    let both = policy.allow("10.0.0.0/8").and_then(|policy| policy.allow("169.254.169.254")).unwrap();
    assert!(check(&both, "https://[64:ff9b::a00:1]/").is_ok() && check(&both, "https://[64:ff9b::a9fe:a9fe]/").is_ok());
    let alone = Policy::default().allow("64:ff9b::a9fe:a9fe").unwrap();
    assert!(
        check(&alone, "https://[64:ff9b::a9fe:a9fe]/").is_ok() && check(&alone, "https://[64:ff9b::7f00:1]/").is_err()
    );
}

#[test]
fn unusable_entries_are_refused() {
    let error = |entry: &str| Policy::default().allow(entry).expect_err(entry);
    for entry in
        ["", "*", "*.example.com", "https://a.example", "a.example:443", "a.example:8443", "a b", "10.0.0.0/33"]
    {
        assert_eq!(error(entry), PolicyError::Entry(entry.to_owned()));
    }
    for entry in ["a/b", "u@a.example", "a.example#x", "127.1", "[::1]", "bücher.example", "a.example."] {
        assert_eq!(error(entry), PolicyError::Entry(entry.to_owned()));
    }
    assert_eq!(error("10.1.2.3/8").to_string(), "10.1.2.3/8 has bits after its prefix: write 10.0.0.0/8");
    assert!(matches!(error("::ffff:10.0.0.1"), PolicyError::Mapped(_)));
    assert!(matches!(error("::ffff:10.0.0.0/104"), PolicyError::Mapped(_)));
}

#[test]
fn development_permits_loopback_and_nothing_else() {
    let policy = Policy::default().with_development();
    for url in [
        "http://localhost:3000/",
        "http://127.0.0.1/",
        "http://[::1]:1024/",
        "https://localhost/",
        "https://a.localhost/",
    ] {
        assert!(check(&policy, url).is_ok(), "{url}");
    }
    for url in [
        "http://example.com/",
        "http://10.0.0.1/",
        "https://10.0.0.1/",
        "http://localhost.example/",
        "http://localhost:22/",
    ] {
        assert!(check(&policy, url).is_err(), "{url}");
    }
    let target = check(&policy, "http://a.localhost/").unwrap();
    assert_eq!(policy.check_addresses(&target, &addresses(&["127.0.0.1", "::1"])), Ok(()));
    let public = policy.check_addresses(&target, &addresses(&["8.8.8.8"]));
    assert!(matches!(public, Err(Refusal::PlainHttpAddress { .. })), "{public:?}");
}

#[test]
fn what_alone_permits_an_address_is_known() {
    let policy = Policy::default().with_development();
    let entries = ["10.1.0.0/16", "10.1.2.3", "vault.internal", "169.254.169.254"];
    let policy = entries.into_iter().try_fold(policy, |policy, entry| policy.allow(entry)).unwrap();
    let development = || Allowance::Development.to_string();
    let entry = |entry: &str| format!("egress.allow has \"{entry}\"");
    for (url, resolved, expected) in [
        ("https://login.example.com/", &["8.8.8.8"][..], vec![]),
        ("http://localhost/", &[], vec![development()]),
        ("https://localhost/", &["127.0.0.1", "::1"], vec![development()]),
        ("https://login.example.com/", &["8.8.8.8", "10.1.2.4"], vec![entry("10.1.0.0/16")]),
        ("https://login.example.com/", &["::ffff:10.1.2.3", "127.0.0.1"], vec![development(), entry("10.1.2.3")]),
        ("https://vault.internal/", &["10.2.0.1"], vec![entry("vault.internal")]),
        ("https://login.example.com/", &["169.254.169.254"], vec![entry("169.254.169.254")]),
    ] {
        let target = check(&policy, url).unwrap();
        assert_eq!(policy.check_addresses(&target, &addresses(resolved)), Ok(()), "{url}");
        let allowances = policy.allowances(&target, &addresses(resolved));
        assert_eq!(allowances.iter().map(Allowance::to_string).collect::<Vec<_>>(), expected, "{url} {resolved:?}");
    }
    let proxied = |url: &str| policy.proxied_allowances(&check(&policy, url).unwrap());
    assert_eq!(proxied("https://vault.internal/"), BTreeSet::from([Allowance::Entry("vault.internal".to_owned())]));
    assert_eq!(proxied("https://10.1.2.4/"), BTreeSet::from([Allowance::Entry("10.1.0.0/16".to_owned())]));
    assert_eq!(proxied("https://login.example.com/"), BTreeSet::new());
    // A proxy speaks http to everyone.
    let proxy = check(&policy, "http://localhost:3128/").unwrap();
    assert_eq!(policy.proxy_allowances(&proxy, &addresses(&["8.8.8.8"])), BTreeSet::new());
    assert_eq!(policy.proxy_allowances(&proxy, &addresses(&["127.0.0.1"])), BTreeSet::from([Allowance::Development]));
}

#[test]
fn names_for_a_proxy_are_checked_as_names() {
    let policy = Policy::default().with_development().allow("vault.internal").unwrap();
    let proxied = |url: &str| policy.check_proxied(&check(&policy, url).unwrap());
    assert_eq!(proxied("https://login.example.com/"), Ok(()));
    assert_eq!(proxied("https://vault.internal/"), Ok(()));
    assert_eq!(proxied("http://localhost/"), Err(Refusal::ProxiedHttp));
    assert_eq!(proxied("https://svc.example.com/"), Ok(()));
    for url in [
        "https://localhost/",
        "https://metadata.google.internal/",
        "https://vault/",
        "https://printer.local/",
        "https://vault.secrets.svc/",
        "https://vault.secrets.svc.cluster.local/",
        "https://wiki.intranet/",
        "https://nas.home/",
        "https://db.private/",
    ] {
        let refusal = proxied(url).unwrap_err();
        assert_eq!(refusal, Refusal::ProxiedName { rule: Rule::LocalName }, "{url}");
        assert!(refusal.to_string().contains("only the name was checked"));
    }
}

#[test]
fn debug_of_a_target_has_no_path_and_no_query() {
    let target = check(&Policy::default(), "https://a.example:8443/secret?token=canary").unwrap();
    assert_eq!(format!("{target:?}"), "https://a.example:8443");
}
