//! Patches: changes of resources. What a patch leaves out stays as it is.

use crate::error::Violations;
use crate::value::secret::SecretPatch;

/// A change. The default changes nothing.
pub trait Patch: Default {
    /// Returns true if it changes nothing.
    fn is_empty(&self) -> bool;
}

/// A change of a field of type `T`.
pub trait FieldPatch<T>: Patch {
    /// Changes the field, and adds what is wrong with the result. `path` is that of the field in requests.
    fn apply(&self, path: &str, field: &mut T, violations: &mut Violations);
}

impl<T> Patch for Option<T> {
    fn is_empty(&self) -> bool {
        self.is_none()
    }
}

impl<T: Clone> FieldPatch<T> for Option<T> {
    fn apply(&self, _path: &str, field: &mut T, _violations: &mut Violations) {
        if let Some(value) = self {
            field.clone_from(value);
        }
    }
}

impl<S> Patch for SecretPatch<S> {
    fn is_empty(&self) -> bool {
        matches!(self, SecretPatch::Keep)
    }
}

/// Makes a resource and its patch from one table.
///
/// - `fixed` fields are only in the resource. `patched` fields are in both: the patch of a field of type `T` is an
///   `Option<T>`, or the type behind `=>`. Fields of `patch only` are changed by the resource's own code.
/// - `blank` are the parameters of a constructor of the same name. It sets each field to the value behind `=`, or else to
///   the default of its type.
/// - `in` is the path of the resource in requests. The names of fields with a patch type of their own are those of the contract.
macro_rules! patchable {
    (
        $(#[$meta:meta])*
        pub struct $name:ident in $path:literal, $blank_visibility:vis blank($($parameter:ident: $parameter_type:ty),*);
        $(#[$patch_meta:meta])*
        pub struct $patch:ident;
        $(
            fixed { $($(#[$fixed_meta:meta])* $fixed:ident: $fixed_type:ty $(= $fixed_value:expr)?,)* }
            patched { $($(#[$field_meta:meta])* $field:ident: $type:ty $(=> $field_patch:ty)? $(= $value:expr)?,)* }
        )*
        patch only { $($(#[$only_meta:meta])* $only:ident: $only_type:ty,)* }
    ) => {
        $(#[$meta])*
        pub struct $name {
            $($($(#[$fixed_meta])* pub $fixed: $fixed_type,)* $($(#[$field_meta])* pub $field: $type,)*)*
        }

        $(#[$patch_meta])*
        #[derive(Debug, Default)]
        pub struct $patch {
            $($(pub $field: $crate::patch::patchable!(@patch $type $(, $field_patch)?),)*)*
            $($(#[$only_meta])* pub $only: $only_type,)*
        }

        impl $name {
            /// A new one, with the defaults of its fields.
            $blank_visibility fn blank($($parameter: $parameter_type),*) -> Self {
                $name {
                    $($($fixed: $crate::patch::patchable!(@value $($fixed_value)?),)*
                    $($field: $crate::patch::patchable!(@value $($value)?),)*)*
                }
            }

            /// Changes the patched fields, and adds what is wrong with the result.
            pub(crate) fn apply(&mut self, patch: &$patch, violations: &mut $crate::error::Violations) {
                $($(
                    let path = concat!($path, ".", stringify!($field));
                    $crate::patch::FieldPatch::apply(&patch.$field, path, &mut self.$field, violations);
                )*)*
            }
        }

        impl $crate::patch::Patch for $patch {
            fn is_empty(&self) -> bool {
                let $patch { $($($field,)*)* $($only,)* } = self;
                $($($crate::patch::Patch::is_empty($field) &&)*)* $($crate::patch::Patch::is_empty($only) &&)* true
            }
        }
    };
    (@patch $type:ty) => { Option<$type> };
    (@patch $type:ty, $patch:ty) => { $patch };
    (@value) => { Default::default() };
    (@value $value:expr) => { $value };
}
pub(crate) use patchable;
