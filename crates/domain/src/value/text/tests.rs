use super::*;

#[test]
fn names_are_trimmed_bounded_and_compared_regardless_of_case_and_composition() {
    assert_eq!(Name::parse("name", "  Gmail \n", 191).unwrap().as_str(), "Gmail");
    assert_eq!(Name::parse("name", &"ä".repeat(191), 191).unwrap().as_str().chars().count(), 191);
    let key = |name: &str| Name::parse("name", name, 191).unwrap().key();
    let same = [
        ("Gmail", "gMAIL"),
        ("Straße", "STRASSE"),
        ("STRAẞE", "straße"),
        ("ΟΔΟΣ", "οδος"),
        ("ΟΔΟΣ", "οδοσ"),
        ("É", "é"),
        ("Caf\u{e9}", "CAFE\u{301}"),
        ("\u{1fb4}", "\u{3b1}\u{345}\u{301}"),
        ("\u{ac00}", "\u{1100}\u{1161}"),
        ("\u{212b}", "a\u{30a}"),
    ];
    for (one, other) in same {
        assert_eq!(key(one), key(other));
    }
    assert_eq!(Name::parse("name", "Cafe\u{301}", 191).unwrap().as_str(), "Cafe\u{301}", "a name is shown as given");
    assert_ne!(key("Cafe"), key("Café"));
    assert_ne!(key("Gmail"), key("Gmai1"));
    let long = "ä".repeat(192);
    for wrong in [
        "",
        " ",
        "\u{a0}\u{2003}",
        "a\u{0}b",
        "a\nb",
        "a\u{7f}",
        "a\u{85}b",
        "a\u{202e}b",
        "a\u{2066}",
        "a\u{200b}b",
        "\u{feff}a",
        &long,
    ] {
        assert_eq!(Name::parse("connector.name", wrong, 191).unwrap_err().field, "connector.name", "{wrong:?}");
    }
    assert!(Name::parse("name", "日本語 👩‍💻 (ж)", 191).is_ok(), "ordinary text stays allowed");
}

#[test]
fn external_ids_lose_one_prefix() {
    for given in ["Team A", "ext:Team A", "  ext: Team A "] {
        assert_eq!(ExternalId::parse("external_id", given).unwrap().as_str(), "Team A");
    }
    let exact = format!("ext:{}", "x".repeat(191));
    assert_eq!(ExternalId::parse("external_id", &exact).unwrap().as_str().len(), 191);
    let long = "x".repeat(192);
    for wrong in ["", "  ", "ext:", " ext:  ", "ext:ext:a", "ext: ext:a", "a\tb", &long] {
        assert!(ExternalId::parse("external_id", wrong).is_err(), "{wrong:?}");
    }
}

#[test]
fn an_external_id_sent_back_is_the_same() {
    for given in ["a", "ext:a", "EXT:a", "name:x", "ext", "ext :a"] {
        let id = ExternalId::parse("external_id", given).unwrap();
        assert_eq!(ExternalId::parse("external_id", id.as_str()).unwrap(), id);
    }
}

#[test]
fn slugs_user_ids_and_tenant_names() {
    let (slug, user, tenant) = ("s".repeat(64), "u".repeat(128), "t".repeat(63));
    for good in ["con_1", "a:b-c.d", "9", &slug] {
        assert!(Slug::parse("external_id", good).is_ok(), "{good}");
    }
    for wrong in ["", "a b", "ä", "a/b", "a\n", &format!("{slug}s")] {
        assert!(Slug::parse("external_id", wrong).is_err(), "{wrong:?}");
    }
    for good in ["alice", "auth0|1", "Ä b", &user] {
        assert_eq!(UserId::parse("user_id", good).unwrap().as_str(), good);
    }
    for wrong in ["", " ", " a", "a ", "a\tb", "\u{2069}", &format!("{user}u")] {
        assert!(UserId::parse("user_id", wrong).is_err(), "{wrong:?}");
    }
    for good in ["a", "default", "a-1", &tenant] {
        assert!(TenantName::parse("name", good).is_ok(), "{good}");
    }
    for wrong in ["", "A", "1a", "-a", "a-", "a_b", "a.b", "ä", &format!("{tenant}t")] {
        assert!(TenantName::parse("name", wrong).is_err(), "{wrong:?}");
    }
}

#[test]
fn descriptions_may_have_line_breaks_and_other_texts_may_not() {
    assert_eq!(description("description", "a\n\tb\r\n").unwrap(), "a\n\tb\r\n");
    assert!(description("description", "").is_ok() && description("description", &"ä".repeat(1024)).is_ok());
    for wrong in ["\u{0}", "\u{1b}[31m", "a\u{2028}b", "\u{202e}", &"ä".repeat(1025)] {
        assert!(description("description", wrong).is_err(), "{wrong:?}");
    }
    assert_eq!(bounded_text("prefix", "Bearer ", 64, true).unwrap(), "Bearer ");
    assert!(bounded_text("prefix", "", 64, true).is_ok() && bounded_text("prefix", "", 64, false).is_err());
    assert!(bounded_text("prefix", "\n", 64, true).is_err());
}

#[test]
fn countries_are_those_of_the_standard() {
    let all: Vec<_> = COUNTRIES.split_ascii_whitespace().collect();
    assert_eq!(all.len(), 249);
    assert!(all.is_sorted() && all.iter().all(|code| CountryCode::parse("user_data_location", code).is_ok()));
    for wrong in ["", "de", "DEU", "XX", "UK", "EU", " DE", "D", "AD AE"] {
        assert!(CountryCode::parse("user_data_location", wrong).is_err(), "{wrong}");
    }
}

/// Filters are folded when they are parsed, and again when their printed form is parsed.
#[test]
fn folding_is_idempotent_in_every_composition() {
    let changes = |c: &char| {
        let is_same = |mut other: &mut dyn Iterator<Item = char>| (&mut other).eq([*c]);
        !(is_same(&mut c.to_lowercase()) && is_same(&mut c.to_uppercase()) && is_same(&mut c.nfd()))
    };
    for c in (0..=u32::from(char::MAX)).filter_map(char::from_u32).filter(changes) {
        for text in [format!("{c}"), format!("a{c}\u{301}"), format!("\u{345}{c}")] {
            let folded = fold(&text);
            assert_eq!(fold(&folded), folded, "{text:?}");
            assert_eq!(fold(&text.nfc().collect::<String>()), folded, "{text:?}");
            assert_eq!(fold(&text.nfd().collect::<String>()), folded, "{text:?}");
        }
    }
}

#[test]
fn invisible_characters_are_refused_in_names() {
    let marks = ['\u{61C}', '\u{200E}', '\u{200F}'];
    let overrides = ['\u{2028}', '\u{2029}', '\u{202A}', '\u{202E}', '\u{2066}', '\u{2069}'];
    let invisible = [
        '\u{34F}', '\u{115F}', '\u{1160}', '\u{17B4}', '\u{17B5}', '\u{180E}', '\u{200B}', '\u{2060}', '\u{206F}',
        '\u{3164}', '\u{FEFF}', '\u{FFA0}', '\u{FFF0}', '\u{FFF9}', '\u{FFFB}',
    ];
    for c in marks.into_iter().chain(overrides).chain(invisible) {
        let text = format!("a{c}b");
        assert!(bounded_text("field", &text, 10, false).is_err(), "{c:?}");
        assert!(UserId::parse("user_id", &text).is_err(), "{c:?}");
        assert_eq!(description("description", &text).is_ok(), marks.contains(&c), "{c:?}");
    }
    // A coloured heart, a Persian word with a non-joiner, a soft hyphen, a Mongolian variant, two letters in Braille.
    let persian = "\u{645}\u{6CC}\u{200C}\u{62E}\u{648}\u{627}\u{647}\u{645}";
    for text in ["\u{2764}\u{FE0F}", persian, "a\u{AD}b", "\u{1820}\u{180B}", "\u{2801}\u{2800}\u{2803}"] {
        assert!(bounded_text("field", text, 10, false).is_ok(), "{text:?}");
        assert!(identifier("field", text, 10, false).is_err(), "{text:?}");
    }
}

#[test]
fn identifiers_have_no_character_that_is_ignored_by_default() {
    // The ranges of `Default_Ignorable_Code_Point`.
    let ranges = [
        '\u{AD}'..='\u{AD}',
        '\u{34F}'..='\u{34F}',
        '\u{61C}'..='\u{61C}',
        '\u{115F}'..='\u{1160}',
        '\u{17B4}'..='\u{17B5}',
        '\u{180B}'..='\u{180F}',
        '\u{200B}'..='\u{200F}',
        '\u{202A}'..='\u{202E}',
        '\u{2060}'..='\u{206F}',
        '\u{3164}'..='\u{3164}',
        '\u{FE00}'..='\u{FE0F}',
        '\u{FEFF}'..='\u{FEFF}',
        '\u{FFA0}'..='\u{FFA0}',
        '\u{FFF0}'..='\u{FFF8}',
        '\u{1BCA0}'..='\u{1BCA3}',
        '\u{1D173}'..='\u{1D17A}',
        '\u{E0000}'..='\u{E0FFF}',
    ];
    for c in ranges.into_iter().flatten() {
        assert!(identifier("client_id", &format!("a{c}b"), 10, false).is_err(), "{c:?}");
    }
    for wrong in [" a", "a ", "a\u{a0}", "\n", " "] {
        assert!(identifier("client_id", wrong, 10, true).is_err(), "{wrong:?}");
    }
    for good in ["", "a b", "https://example.com/ж"] {
        assert_eq!(identifier("client_id", good, 30, true).unwrap(), good);
    }
}
