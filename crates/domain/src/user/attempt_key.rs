//! Keys of login ids that are coarser than the login ids. Systems take more spellings for the same user than Jackfield does.

use unicode_normalization::UnicodeNormalization as _;
use unicode_normalization::char::canonical_combining_class;

use super::login_id::login_key;
use crate::value::text::plain;

/// The digit zero of scripts whose digits count like ours; their other digits follow it (Unicode, general category Nd).
const ZEROS: [char; 22] = [
    '\u{660}', '\u{6f0}', '\u{7c0}', '\u{966}', '\u{9e6}', '\u{a66}', '\u{ae6}', '\u{b66}', '\u{be6}', '\u{c66}',
    '\u{ce6}', '\u{d66}', '\u{de6}', '\u{e50}', '\u{ed0}', '\u{f20}', '\u{1040}', '\u{1090}', '\u{17e0}', '\u{1810}',
    '\u{1946}', '\u{19d0}',
];

/// The form of login ids by which users are pinned to connectors. Directories drop characters that have no shape, and read wide letters
/// as usual ones and several blanks as one (RFC 4518 2, RFC 8265). A domain is the same with a dot at its end and with ideographic dots
/// (UTS 46).
pub fn pin_key(text: &str) -> String {
    let text = plain(text).replace('\u{3002}', ".");
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match text.contains('@') {
        true => login_key(text.trim_end_matches(['.', ' '])),
        false => login_key(&text),
    }
}

/// The form of login ids by which attempts are counted. It is coarser than [`pin_key`], because databases and directories compare names by
/// their letters alone (UTS 10, level 1), so that each accent would be another try. Users whose names differ in accents share a count.
pub fn attempt_key(text: &str) -> String {
    let mut letters = String::with_capacity(text.len());
    for c in pin_key(text).nfd().filter(|c| !is_accent(*c)) {
        match c {
            'ø' => letters.push('o'),
            'ł' => letters.push('l'),
            'đ' => letters.push('d'),
            'ħ' => letters.push('h'),
            'ı' => letters.push('i'),
            'æ' => letters.push_str("ae"),
            'œ' => letters.push_str("oe"),
            // Tatweel makes words longer, and nothing else.
            '\u{640}' => {}
            _ => letters.push(plain_letter(c)),
        }
    }
    letters.nfc().collect()
}

/// Returns whether a character is set above, below or around the one before it. Vowel signs are not: they are letters.
fn is_accent(c: char) -> bool {
    canonical_combining_class(c) != 0 || matches!(c, '\u{20dd}'..='\u{20e4}')
}

/// The usual form of a character: of katakana hiragana, of a white letter in a black circle or square the letter, of a digit ours.
fn plain_letter(c: char) -> char {
    let at = |first: u32, base: u32| char::from_u32(u32::from(c) - first + base).unwrap_or(c);
    match c {
        '\u{30a1}'..='\u{30f6}' => at(0x30a1, 0x3041),
        '\u{1f150}'..='\u{1f169}' => at(0x1f150, u32::from('a')),
        '\u{1f170}'..='\u{1f189}' => at(0x1f170, u32::from('a')),
        c if c.is_numeric() => {
            let digit = |zero: &char| u32::from(c).checked_sub(u32::from(*zero)).filter(|digit| *digit < 10);
            ZEROS.iter().find_map(digit).and_then(|digit| char::from_digit(digit, 10)).unwrap_or(c)
        }
        c => c,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_pinned_by_all_spellings_that_a_system_may_take_for_one() {
        for other in
            ["Ada", " ada ", "a\u{ad}da", "ad\u{200d}a", "ada\u{fe0f}", "\u{ff41}da", "\u{24d0}DA", "ada\u{e0100}"]
        {
            assert_eq!(pin_key("ada"), pin_key(other), "{other:?}");
            assert_eq!(attempt_key("ada"), attempt_key(other), "{other:?}");
        }
        assert_eq!(pin_key("+49 170 1234567"), pin_key("\u{ff0b}491701234567"));
        assert_eq!(pin_key("ada king"), pin_key("ada \t\u{3000} King"));
        for other in
            ["ada@example.com.", "ada@example\u{3002}com", "ada@example\u{ff61}com\u{ff0e}", "Ada@EXAMPLE.com. . ."]
        {
            assert_eq!(pin_key("ada@example.com"), pin_key(other), "{other:?}");
        }
        for other in ["bda", "a da", "\u{430}da", "ada1", "ada.", "ad\u{e1}"] {
            assert_ne!(pin_key("ada"), pin_key(other), "{other:?}");
        }
    }

    #[test]
    fn attempts_are_counted_by_the_letters_of_a_login_id() {
        for (one, other) in [
            ("andre", "ANDR\u{c9}"),
            ("andre", "andre\u{301}\u{302}\u{20dd}"),
            ("ann1", "ann\u{661}"),
            ("ann1", "ann\u{6f1}"),
            ("ann", "\u{1f150}\u{1f15d}\u{1f17d}"),
            ("ann", "a\u{640}n\u{640}n"),
            ("soren@example.com", "s\u{f8}ren@example.com"),
            ("aesop", "\u{c6}sop"),
            ("lukasz", "\u{142}ukasz"),
            ("ilkay", "\u{130}lkay"),
            ("ilkay", "\u{131}lkay"),
            ("\u{304b}\u{304a}", "\u{30ab}\u{30aa}"),
            ("\u{304b}", "\u{30ac}"),
        ] {
            assert_eq!(attempt_key(one), attempt_key(other), "{one} {other}");
        }
        for (one, other) in [
            ("ann", "anne"),
            ("ann1", "ann2"),
            ("ada", "\u{430}da"),
            ("a b", "ab"),
            ("\u{ac00}", "\u{ac01}"),
            ("\u{939}\u{93f}", "\u{939}"),
        ] {
            assert_ne!(attempt_key(one), attempt_key(other), "{one} {other}");
        }
        assert_eq!(attempt_key("+49 170 1234567"), attempt_key("+491701234567"));
    }
}
