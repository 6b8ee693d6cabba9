//! Enums whose values are known by a name: in filters, in the database and in documents.

/// Defines such an enum by a table of its values and their names.
macro_rules! names {
    (
        $(#[$meta:meta])*
        pub enum $enum:ident {
            $($(#[$value_meta:meta])* $value:ident = $name:literal,)*
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
        pub enum $enum {
            $($(#[$value_meta])* #[serde(rename = $name)] $value,)*
        }

        impl $enum {
            /// The names of all values.
            pub const NAMES: &'static [&'static str] = &[$($name),*];

            /// The name of this value.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $($enum::$value => $name,)*
                }
            }

            /// The value with a name.
            pub fn named(name: &str) -> Option<Self> {
                match name {
                    $($name => Some($enum::$value),)*
                    _ => None,
                }
            }
        }
    };
}
pub(crate) use names;
