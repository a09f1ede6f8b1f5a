//! Closed sets of violations: an error, a place in a counter array and a metric label in one.

/// Declares the kinds with their labels, so that neither can be forgotten.
macro_rules! closed_kinds {
    ($(#[$enum_doc:meta])* $name:ident; $($(#[$doc:meta])* $kind:ident = $label:literal, $message:literal;)*) => {
        $(#[$enum_doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, thiserror::Error)]
        #[repr(u8)]
        pub enum $name {
            $($(#[$doc])* #[error($message)] $kind,)*
        }

        impl $name {
            /// Every kind, in the order of declaration.
            pub const ALL: &'static [Self] = &[$(Self::$kind,)*];

            /// How many kinds there are.
            pub const COUNT: usize = Self::ALL.len();

            /// The word for this kind in metrics.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self {
                    $(Self::$kind => $label,)*
                }
            }
        }
    };
}

pub(in crate::http::h2) use closed_kinds;
