//! The reasons of errors, as they are sent.

use jackfield_api::v1::ErrorReason;

/// The prefix that names in the contract have and names on the wire do not (AIP-193).
const PREFIX: &str = "ERROR_REASON_";

/// Returns the name of a reason as it is sent.
pub fn reason_name(reason: ErrorReason) -> &'static str {
    reason.as_str_name().trim_start_matches(PREFIX)
}

/// Returns the names of all reasons.
pub(crate) fn reason_names() -> Vec<&'static str> {
    // Numbers are below 200, with gaps where reasons of another kind begin.
    (1..200).filter_map(|n| ErrorReason::try_from(n).ok()).map(reason_name).collect()
}

#[cfg(test)]
mod tests {
    use jackfield_domain::Error;
    use jackfield_transport::call::methods::{Methods, Shape};
    use jackfield_transport::call::status::status;
    use prost::Message as _;
    use prost_types::FileDescriptorSet;
    use tonic_types::StatusExt as _;

    #[test]
    fn errors_have_the_domain_of_the_contract() {
        let info = status(Error::DeadlineExceeded).get_details_error_info().unwrap();
        assert_eq!(info.domain, jackfield_api::ERROR_DOMAIN);
    }

    #[test]
    fn streams_of_the_contract_are_lists_watches_reports_and_conversations() {
        let methods = Methods::new([jackfield_api::FILE_DESCRIPTOR_SET]).unwrap();
        let set = FileDescriptorSet::decode(jackfield_api::FILE_DESCRIPTOR_SET).unwrap();
        let (mut lists, mut reports, mut conversations) = (0, Vec::new(), Vec::new());
        for file in &set.file {
            for service in &file.service {
                for method in &service.method {
                    let path = format!("/{}.{}/{}", file.package(), service.name(), method.name());
                    let shape = methods.get(&path).unwrap().shape;
                    let expected = match method.name() {
                        _ if method.client_streaming() => Shape::Conversation,
                        _ if !method.server_streaming() => Shape::Unary,
                        name if name.starts_with("List") => Shape::Pages,
                        name if name.starts_with("Watch") => Shape::Watch,
                        _ => Shape::Report,
                    };
                    assert_eq!(shape, expected, "{path}");
                    lists += usize::from(shape == Shape::Pages);
                    reports.extend((shape == Shape::Report).then(|| method.name().to_owned()));
                    conversations.extend((shape == Shape::Conversation).then(|| method.name().to_owned()));
                }
            }
        }
        assert!(lists > 5, "{lists}");
        assert_eq!(reports, ["TestConnection", "TestConnector"]);
        assert_eq!(conversations, ["ServeCredentials"]);
    }
}
