//! The process that telemetry comes from: the resource of OpenTelemetry.

use std::borrow::Cow;
use std::env;
use std::sync::LazyLock;

use opentelemetry::KeyValue;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::resource::{ResourceDetector as _, TelemetryResourceDetector};
use percent_encoding::percent_decode_str;
use uuid::Uuid;

/// The release of the conventions whose names are used.
const SCHEMA_URL: &str = "https://opentelemetry.io/schemas/1.44.0";

const SERVICE: &str = "jackfield";
const SERVICE_NAME: &str = "service.name";
const OTEL_SERVICE_NAME: &str = "OTEL_SERVICE_NAME";
const OTEL_RESOURCE_ATTRIBUTES: &str = "OTEL_RESOURCE_ATTRIBUTES";

/// The resource of this process.
pub(super) struct Described {
    pub(super) resource: Resource,
    /// The reason why the variable with attributes was ignored, if it was.
    pub(super) refused: Option<&'static str>,
}

/// Made once: an id that each process makes for itself distinguishes replicas.
#[expect(
    clippy::disallowed_methods,
    reason = "variables that have names of their own by a specification, and no id of ours"
)]
pub(super) static RESOURCE: LazyLock<Described> = LazyLock::new(|| {
    let variable = |name| env::var(name).unwrap_or_default();
    describe(&variable(OTEL_SERVICE_NAME), &variable(OTEL_RESOURCE_ATTRIBUTES), Uuid::new_v4())
});

/// Describes the process. Later sources win: what is known here, `OTEL_RESOURCE_ATTRIBUTES`, `OTEL_SERVICE_NAME`, as the
/// specification of OpenTelemetry says for the variables.
fn describe(service_name: &str, attributes: &str, instance: Uuid) -> Described {
    let own = [
        KeyValue::new(SERVICE_NAME, SERVICE),
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        KeyValue::new("service.instance.id", instance.to_string()),
    ];
    // All or nothing, as the specification says.
    let (given, refused) = match parse(attributes) {
        Ok(given) => (given, None),
        Err(why) => (Vec::new(), Some(why)),
    };
    let name = (!service_name.is_empty()).then(|| KeyValue::new(SERVICE_NAME, service_name.to_owned()));
    let sdk = TelemetryResourceDetector.detect();
    let sdk = sdk.iter().map(|(key, value)| KeyValue::new(key.clone(), value.clone()));
    let builder = Resource::builder_empty().with_attributes(sdk).with_attributes(own).with_attributes(given);
    let resource = builder.with_attributes(name).with_schema_url([], SCHEMA_URL).build();
    Described { resource, refused }
}

/// `key=value,key=value`, percent-encoded where needed.
fn parse(attributes: &str) -> Result<Vec<KeyValue>, &'static str> {
    let parts = attributes.split(',').map(str::trim).filter(|part| !part.is_empty());
    parts
        .map(|part| {
            let (key, value) = part.split_once('=').ok_or("a part of it has no =")?;
            let decode = |text: &str| {
                let decoded = percent_decode_str(text.trim()).decode_utf8();
                decoded.map(Cow::into_owned).map_err(|_| "it is not UTF-8 when decoded")
            };
            match decode(key)? {
                key if key.is_empty() => Err("a key is empty"),
                key => Ok(KeyValue::new(key, decode(value)?)),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use opentelemetry::Key;

    use super::*;

    fn described(
        service_name: &str,
        attributes: &str,
    ) -> (impl Fn(&'static str) -> Option<String>, Option<&'static str>) {
        let Described { resource, refused } = describe(service_name, attributes, Uuid::nil());
        (move |key| resource.get(&Key::new(key)).map(|value| value.to_string()), refused)
    }

    #[test]
    fn a_process_has_a_name_a_version_and_an_id() {
        let (of, refused) = described("", "");
        assert_eq!(of("service.name").as_deref(), Some("jackfield"));
        assert_eq!(of("service.version").as_deref(), Some(env!("CARGO_PKG_VERSION")));
        assert_eq!(of("service.instance.id").as_deref(), Some("00000000-0000-0000-0000-000000000000"));
        assert_eq!(of("service.namespace"), None);
        assert_eq!(of("telemetry.sdk.language").as_deref(), Some("rust"));
        assert_eq!(refused, None);
    }

    #[test]
    fn the_variable_of_the_name_is_above_that_of_the_attributes_which_is_above_what_is_known() {
        let attributes = " service.name = a , service.instance.id=pod-1,service.namespace=x%2Cy,k8s.pod.name=p,";
        let (of, refused) = described("", attributes);
        assert_eq!(refused, None);
        assert_eq!(of("service.name").as_deref(), Some("a"));
        assert_eq!(of("service.instance.id").as_deref(), Some("pod-1"));
        assert_eq!(of("service.namespace").as_deref(), Some("x,y"));
        assert_eq!(of("k8s.pod.name").as_deref(), Some("p"));
        let (of, _) = described("b", attributes);
        assert_eq!(of("service.name").as_deref(), Some("b"));
    }

    #[test]
    fn attributes_with_a_mistake_are_passed_over_as_a_whole() {
        for (attributes, why) in [
            ("service.namespace=x,y", "a part of it has no ="),
            ("service.namespace=x,=y", "a key is empty"),
            ("service.namespace=%ff", "it is not UTF-8 when decoded"),
        ] {
            let (of, refused) = described("", attributes);
            assert_eq!(refused, Some(why), "{attributes}");
            assert_eq!(of("service.namespace"), None, "{attributes}");
            assert_eq!(of("service.name").as_deref(), Some("jackfield"), "{attributes}");
        }
    }
}
