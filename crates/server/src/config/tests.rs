use std::path::PathBuf;
use std::time::Duration;

use toml::{Table, Value};

use super::*;

fn from_flags(flags: &[&str]) -> Result<Config, ConfigError> {
    Config::load(&sources("", &[], flags).1)
}

/// Returns the temporary file of the TOML layer as well, because it has to outlive the sources.
fn sources(file: &str, environment: &[(&str, &str)], flags: &[&str]) -> (tempfile::NamedTempFile, Sources) {
    let path = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&path, file).unwrap();
    let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
    let sources = Sources { file: Some(path.path().to_owned()), environment, flags, ..Sources::default() };
    (path, sources)
}

fn keys(prefix: &str, table: &Table, out: &mut Vec<String>) {
    for (key, value) in table {
        let path = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        match value {
            Value::Table(inner) => keys(&path, inner, out),
            _ => out.push(path),
        }
    }
}

#[test]
fn the_default_file_matches_the_code() {
    assert_eq!(toml::from_str::<Config>(DEFAULTS).unwrap(), Config::default());
    let (mut documented, mut known) = (Vec::new(), Vec::new());
    keys("", &toml::from_str(DEFAULTS).unwrap(), &mut documented);
    keys("", &Table::try_from(Config::default()).unwrap(), &mut known);
    documented.sort();
    known.sort();
    assert_eq!(documented, known);
}

#[test]
fn every_key_of_the_default_file_has_a_comment() {
    let lines: Vec<_> = DEFAULTS.lines().collect();
    for (number, line) in lines.iter().enumerate() {
        if line.contains(" = ") && !line.starts_with('#') {
            assert!(lines[number - 1].starts_with("# "), "no comment above: {line}");
        }
    }
}

#[test]
fn the_commented_example_of_principals_is_valid() {
    let example: String = DEFAULTS
        .lines()
        .skip_while(|line| !line.starts_with("# [[identity"))
        .take_while(|line| line.starts_with('#'))
        .map(|line| format!("{}\n", line.trim_start_matches(['#', ' '])))
        .collect();
    let (_file, sources) = sources(&example, &[], &[]);
    assert_eq!(Config::load(&sources).unwrap().identity.principals.len(), 3);
}

#[test]
fn later_layers_win() {
    let file = "data_dir = \"/file\"\n[drain]\ndelay = \"1s\"\ngrace = \"1s\"\n[limits]\nmax_calls = 501";
    let environment =
        [("JACKFIELD__DRAIN__DELAY", "2s"), ("JACKFIELD__LIMITS__MAX_CALLS", "502"), ("HOME", "/home/me")];
    let (_file, sources) = sources(file, &environment, &["limits.max_calls=503", "listen.plaintext=true"]);
    let config = Config::load(&sources).unwrap();
    assert_eq!(config.data_dir, PathBuf::from("/file"));
    assert_eq!((config.drain.delay, config.drain.grace), (Duration::from_secs(2), Duration::from_secs(1)));
    assert_eq!(config.limits.max_calls, 503);
    assert!(config.listen.plaintext);
}

#[test]
fn a_string_that_looks_like_a_number_stays_a_string() {
    assert_eq!(from_flags(&["data_dir=42"]).unwrap().data_dir, PathBuf::from("42"));
    assert_eq!(from_flags(&["data_dir=\"42\""]).unwrap().data_dir, PathBuf::from("42"));
}

#[test]
fn unknown_keys_are_named_with_their_layer() {
    for (file, environment, flag, origin, key) in [
        ("[limits]\nmax_call = 1", None, None, "file ", "max_call"),
        ("[limit]\n", None, None, "file ", "limit"),
        ("", Some(("JACKFIELD__DRAIN__DELAYS", "1s")), None, "environment variable JACKFIELD__DRAIN__DELAYS", "delays"),
        ("", Some(("JACKFIELD__NOTHING", "1s")), None, "environment variable JACKFIELD__NOTHING", "nothing"),
        ("", None, Some("tls.certificates=x"), "flag --set tls.certificates", "certificates"),
        ("", None, Some("tls"), "flag --set tls", "section.key=value"),
    ] {
        let environment: Vec<_> = environment.into_iter().collect();
        let flags: Vec<_> = flag.into_iter().collect();
        let (_file, sources) = sources(file, &environment, &flags);
        let error = Config::load(&sources).unwrap_err().to_string();
        assert!(error.contains(origin) && error.contains(key), "{error}");
    }
}

#[test]
fn errors_never_show_a_value() {
    let url = "postgres://me:hunter2@db/jackfield";
    let file = |line: &str| (format!("mode = \"production\"\n[database]\n{line}"), vec![], vec![]);
    let environment = |name: &str| (String::new(), vec![(name.to_owned(), url.to_owned())], vec![]);
    let flag = |flag: String| (String::new(), vec![], vec![flag]);
    for ((text, environment, flags), shown) in [
        (file(&format!("urll = \"{url}\"")), "line 3, column 1: database: unknown field `urll`"),
        (file(&format!("migrate = \"{url}\"")), "line 3, column 11: database.migrate: invalid type: string"),
        (file(&format!("url = \"{url}")), "line 3, column "),
        (file(&format!("acquire_timeout = \"{url}\"")), "database.acquire_timeout: invalid duration"),
        (file(&format!("\"{url}\" = 1")), "unknown field, expected"),
        (environment("JACKFIELD__DATABASE__URLL"), "unknown field `urll`"),
        (environment("JACKFIELD__DATABASE__MAX_CONNECTIONS"), "database.max_connections: invalid type: string"),
        (environment("JACKFIELD__MODE"), "unknown variant, expected `development` or `production`"),
        (flag(format!("database.urll={url}")), "unknown field `urll`"),
        (flag(format!("limits.max_frame_size={url}")), "limits.max_frame_size: invalid size"),
        (flag(format!("database={url}")), "invalid type: string"),
        (flag(format!("database.url {url}?sslmode=require")), "write section.key=value"),
    ] {
        let environment: Vec<_> = environment.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let flags: Vec<_> = flags.iter().map(String::as_str).collect();
        let (_file, sources) = sources(&text, &environment, &flags);
        let error = Config::load(&sources).unwrap_err();
        let both = format!("{error} {error:?}");
        assert!(both.contains(shown) && !both.contains("hunter2"), "{shown}: {both}");
    }
}

#[test]
fn environment_names_with_one_underscore_are_refused() {
    let load = |environment: &[(&str, &str)]| Config::load(&sources("", environment, &[]).1);
    for name in [
        "JACKFIELD_MODE",
        "JACKFIELD_LIMITS_MAX_CALLS",
        "JACKFIELD_LISTEN_ADDRESS",
        "JACKFIELD_DATABASE_URL",
        "JACKFIELD_DATABASE__URL",
        "jackfield__database__url",
        "Jackfield__Mode",
        "jackfield_mode",
    ] {
        let error = load(&[(name, "production")]).unwrap_err().to_string();
        assert!(error.contains(name) && error.contains("two underscores"), "{error}");
    }
    for name in [
        "JACKFIELD_KEYRING",
        "JACKFIELD_PORT",
        "JACKFIELD_PORT_7443_TCP",
        "JACKFIELD_SERVICE_HOST",
        "JACKFIELD_DATABASE_PORT_5432_TCP",
        "JACKFIELD_DATABASE_SERVICE_HOST",
        "JACKFIELD_MODEL",
    ] {
        load(&[(name, "x")]).unwrap();
    }
    let twice = [("JACKFIELD__LIMITS__MAX_CALLS", "1"), ("JACKFIELD__limits__max_calls", "2")];
    let error = load(&twice).unwrap_err().to_string();
    let expected = "environment variable JACKFIELD__limits__max_calls: sets what JACKFIELD__LIMITS__MAX_CALLS sets: \
                    remove one of the two";
    assert_eq!(error, expected);
    let own = [("JACKFIELD_VAULT_KEYRING", "x"), ("JACKFIELD__VAULT__VARIABLE", "JACKFIELD_VAULT_KEYRING")];
    load(&own).unwrap();
    let sources = Sources { not_utf8: vec!["JACKFIELD__MODE".into()], ..Sources::default() };
    assert!(Config::load(&sources).unwrap_err().to_string().contains("JACKFIELD__MODE: is not UTF-8"));
}

#[test]
fn values_of_the_wrong_form_are_refused() {
    for flag in [
        "drain.delay=5",
        "drain.delay=soon",
        "limits.send_buffer=64",
        "limits.max_calls=many",
        "limits.max_calls=-1",
        "mode=test",
        "listen.plaintext=perhaps",
        "vault.provider=kms",
    ] {
        let error = from_flags(&[flag]).unwrap_err();
        assert!(matches!(error, ConfigError::Layer { .. }), "{flag}: {error}");
    }
}

#[test]
fn all_contradictions_are_reported_at_once() {
    let error = from_flags(&[
        "listen.address=0.0.0.0:7443",
        "listen.plaintext=true",
        "listen.plaintext_principal=unknown",
        "limits.max_calls=0",
        "limits.send_buffer=1B",
        "deadlines.default=2h",
        "listen.health_address=127.0.0.1:9000",
        "telemetry.prometheus_address=127.0.0.1:9000",
        "telemetry.log_filter=info,=x=",
        "telemetry.otlp_endpoint=foo",
        "telemetry.trace_ratio=1.5",
        "database.url=mysql://me:hunter2@db/jackfield",
        "bootstrap.tenant=not a tenant",
        "tls.reload_interval=0s",
        "token_cache.max_staleness=61s",
        "token_cache.max_bytes=1B",
        "egress.allow=[\"10.0.0.1/8\",\"not a host\"]",
        "egress.dns_servers=[\"10.0.0.53\",\"ns.example.com\"]",
        "egress.max_clients=0",
        "login.rejection_interval=6s",
        "login.user_window=0s",
        "login.source_window=25h",
        "license_api.address=0.0.0.0:7443",
        "license_api.plaintext=true",
        "license_api.certificate=a.pem",
        "license_api.principal=b",
        "callback.address=0.0.0.0:7445",
        "callback.plaintext=true",
        "callback.public_url=http://callback.example",
        "callback.user_header=cookie",
        "identity.principals=[{name=\"a\",rights=[\"no.right\"],spiffe=\"http://x\",dns=\"*.x\"},\
         {name=\"b\",tenant=\"t\",dns=\"a.example\"},{name=\"c\",tenant=\"t\",dns=\"A.example\"}]",
    ])
    .unwrap_err();
    let ConfigError::Invalid(problems) = error else { panic!("{error}") };
    for key in [
        "listen.plaintext:",
        "listen.plaintext_principal",
        "limits.max_calls",
        "limits.send_buffer",
        "deadlines.default",
        "tls.reload_interval",
        "token_cache.max_staleness",
        "token_cache.max_bytes",
        "egress.allow: 10.0.0.1/8 has bits after its prefix",
        "egress.allow: \"not a host\"",
        "egress.dns_servers: \"ns.example.com\"",
        "egress.max_clients",
        "login.rejection_interval",
        "login.user_window",
        "login.source_window",
        "license_api.address: another listener",
        "license_api.plaintext: 0.0.0.0:7443 is not loopback",
        "license_api.private_key",
        "license_api.tenant",
        "license_api.principal: a principal",
        "callback.plaintext: 0.0.0.0:7445 is not loopback",
        "callback.public_url: must be an https URL",
        "callback.user_header: is not the name",
        "callback.tenant: ",
        "telemetry.prometheus_address: another listener",
        "telemetry.log_filter",
        "telemetry.otlp_endpoint: is not an absolute URL",
        "telemetry.trace_ratio: 1.5 is not from 0 to 1",
        "database.url",
        "bootstrap.tenant",
        "principals[2].dns",
        "principals[0].tenant",
        "principals[0]: exactly one",
        "principals[0].spiffe",
        "principals[0].dns",
        "principals[0].rights",
    ] {
        assert!(problems.iter().any(|problem| problem.contains(key)), "{key} is not in {problems:#?}");
    }
}

#[test]
fn the_licence_api_has_a_certificate_of_its_own_or_that_of_grpc() {
    let files = |flags: &[&str]| {
        let config =
            from_flags(&[&["license_api.tenant=t", "license_api.address=127.0.0.1:1"], flags].concat()).unwrap();
        config.transport().http.remove(0).certificate.map(|files| files.private_key)
    };
    let own = ["license_api.certificate=a.pem", "license_api.private_key=b.pem"];
    assert_eq!(files(&own), Some("b.pem".into()));
    assert_eq!(files(&["tls.certificate=c.pem", "tls.private_key=d.pem"]), Some("d.pem".into()));
    assert_eq!(files(&["license_api.plaintext=true"]), None);
    let config = from_flags(&["license_api.plaintext=true", "license_api.principal="]).unwrap();
    assert_eq!(config.transport().http, [], "without an address nothing is served, and nothing checked");
}

#[test]
fn the_login_in_front_of_the_callback_listener_is_that_of_one_tenant() {
    let (header, tenant) = ("callback.user_header=x-user", "callback.tenant=acme");
    for (flags, text) in [
        (&[header, tenant][..], ""),
        (&[], ""),
        (&[header], "callback.tenant: "),
        (&[header, "callback.tenant=not a tenant"], "callback.tenant: "),
        (&[tenant], "callback.tenant: has no effect without callback.user_header"),
    ] {
        let error = from_flags(flags).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(error.contains(text) && error.is_empty() == text.is_empty(), "{flags:?}: {error}");
    }
    let of =
        |flags: &[&str]| from_flags(flags).unwrap().callback.login_tenant().map(|tenant| tenant.as_str().to_owned());
    let listener = ["callback.address=127.0.0.1:1", "callback.public_url=https://callback.example"];
    assert_eq!(of(&[&[header, tenant][..], &listener].concat()).as_deref(), Some("acme"));
    assert_eq!(of(&[header, tenant]), None, "there is no listener");
}

#[test]
fn a_limit_that_contradicts_another_is_refused() {
    let resets = "is less than 5 times limits.max_concurrent_streams, which is ";
    for (flags, key, text) in [
        (&["limits.max_pending_accept_reset_streams=20"][..], "limits.max_pending_accept_reset_streams: 20", "500"),
        (&["limits.max_local_error_reset_streams=256"], "limits.max_local_error_reset_streams: 256", "500"),
        (
            &["limits.max_concurrent_streams=240"],
            "limits.max_pending_accept_reset_streams: 1000 is less than 5 times",
            "1200",
        ),
    ] {
        let error = from_flags(flags).unwrap_err().to_string();
        assert!(error.contains(key) && error.contains(&format!("{resets}{text}")), "{error}");
    }
    for (flag, text) in [
        (
            "limits.max_calls_per_identity=99",
            "limits.max_calls_per_identity: 99 is less than limits.max_concurrent_streams",
        ),
        (
            "limits.max_calls_per_tenant=99",
            "limits.max_calls_per_tenant: 99 is less than limits.max_concurrent_streams",
        ),
        // No client gets more than three quarters.
        (
            "limits.max_calls=100",
            "limits.max_calls: the share of one client, 75 of 100, is less than limits.max_concurrent_streams",
        ),
        ("limits.max_calls=134", ""),
        ("limits.max_calls=3", "limits.max_calls: the share of one client, 3 of 3, is less"),
        ("streams.idle_timeout=19s", "streams.idle_timeout: is shorter than limits.write_stall_timeout"),
        ("streams.idle_timeout=20s", ""),
        ("streams.page_memory_per_tenant=49MiB", "streams.page_memory_per_tenant: is larger than streams.page_memory"),
        ("streams.page_memory_per_tenant=48MiB", ""),
        ("limits.connection_window=64KiB", ""),
        ("limits.stream_window=2MiB", "limits.connection_window: is smaller than limits.stream_window"),
    ] {
        match from_flags(&[flag]) {
            Ok(_) => assert_eq!(text, "", "{flag}"),
            Err(error) => assert!(!text.is_empty() && error.to_string().contains(text), "{flag}: {error}"),
        }
    }
    from_flags(&["limits.max_concurrent_streams=10", "limits.max_pending_accept_reset_streams=50"]).unwrap();
}

#[test]
fn the_authority_of_the_receiver_belongs_to_an_https_endpoint() {
    let (https, http, ca) =
        ("telemetry.otlp_endpoint=https://a", "telemetry.otlp_endpoint=http://a", "telemetry.otlp_ca=ca.pem");
    for (flags, text) in [
        (&[https, ca][..], ""),
        (&[http], ""),
        (&[https], "telemetry.otlp_ca: must be set for an https endpoint"),
        (&[http, ca], "telemetry.otlp_ca: has no effect"),
        (&[ca], "telemetry.otlp_ca: has no effect"),
    ] {
        let error = from_flags(flags).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(error.contains(text) && error.is_empty() == text.is_empty(), "{flags:?}: {error}");
    }
}

#[test]
fn the_operator_of_development_needs_a_tenant() {
    let error = from_flags(&["bootstrap.tenant="]).unwrap_err().to_string();
    assert!(error.contains("bootstrap.tenant: must be set"), "{error}");
    from_flags(&["bootstrap.tenant=", "mode=production"]).unwrap();
}

#[test]
fn plaintext_off_loopback_needs_the_explicit_switch() {
    assert!(from_flags(&["listen.plaintext=true"]).is_ok());
    assert!(from_flags(&["listen.plaintext=true", "listen.address=[::]:1"]).is_err());
    let allowed = ["listen.plaintext=true", "listen.address=[::]:1", "listen.allow_plaintext_public=true"];
    assert!(from_flags(&allowed).is_ok());
}

#[test]
fn the_printed_configuration_hides_the_password() {
    let config = from_flags(&["database.url=postgres://me:hunter2@db/jackfield"]).unwrap();
    assert!(config.to_toml().contains("postgres://[redacted]@db/jackfield"));
    assert!(!format!("{config:?}{}", config.to_toml()).contains("hunter2"));
    assert_eq!(config.database_url().expose(), "postgres://me:hunter2@db/jackfield");
}

#[test]
fn development_knows_the_operator_and_production_does_not() {
    assert_eq!(Config::default().principals()[0].spiffe, OPERATOR_SPIFFE);
    assert!(from_flags(&["mode=production"]).unwrap().principals().is_empty());
}
