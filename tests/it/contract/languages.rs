//! The options for code generators: the packages of the generated code in each language.

use prost_reflect::prost_types::FileOptions;

use super::{PACKAGE, POOL};

#[test]
fn every_file_has_the_options_of_each_language() {
    let mut files = 0;
    for file in POOL.files().filter(|file| file.package_name() == PACKAGE) {
        files += 1;
        let stem = file.name().trim_start_matches("jackfield/v1/").trim_end_matches(".proto");
        let outer = stem.split('_').map(capitalised).collect::<String>() + "Proto";
        let said = file.file_descriptor_proto().options.clone().unwrap_or_default();
        let expected = FileOptions {
            csharp_namespace: Some("Jackfield.V1".to_owned()),
            go_package: Some("jackfield/v1;jackfieldv1".to_owned()),
            java_multiple_files: Some(true),
            java_outer_classname: Some(outer.clone()),
            java_package: Some("io.jackfield.v1".to_owned()),
            objc_class_prefix: Some("JKF".to_owned()),
            php_namespace: Some(r"Jackfield\V1".to_owned()),
            ruby_package: Some("Jackfield::V1".to_owned()),
            ..FileOptions::default()
        };
        assert_eq!(said, expected, "{}", file.name());
        // Java generates a class with this name in addition to those of the messages.
        let messages = POOL.all_messages().filter(|message| message.package_name() == PACKAGE);
        assert!(!messages.map(|message| message.name().to_owned()).any(|name| name == outer), "{outer}");
    }
    assert_eq!(files, 20);
}

fn capitalised(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}
