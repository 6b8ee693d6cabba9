//! The filter of all layers for spans that belong to no traced call.

use tracing::subscriber::Interest;
use tracing::{Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use super::{is_call, is_ours};

/// Makes no span outside of the span of a call. The filters of layers are not enough: each says what its layer does not want,
/// and the registry makes every span that might be wanted by another one.
pub(super) struct WithinCalls;

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for WithinCalls {
    fn register_callsite(&self, meta: &'static Metadata<'static>) -> Interest {
        // What is always permitted here is decided by the other layers, once for each place in the code.
        let is_part = meta.is_span() && is_ours(meta) && !is_call(meta);
        if is_part { Interest::sometimes() } else { Interest::always() }
    }

    /// The other layers say what is wanted.
    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::OFF)
    }

    fn enabled(&self, meta: &Metadata<'_>, context: Context<'_, S>) -> bool {
        !meta.is_span() || !is_ours(meta) || is_call(meta) || context.lookup_current().is_some()
    }
}

#[cfg(test)]
mod tests {
    use tracing::Level;
    use tracing_subscriber::filter::filter_fn;
    use tracing_subscriber::layer::{Identity, SubscriberExt as _};
    use tracing_subscriber::registry;

    use super::*;
    use crate::call::context::CALL_SPAN;

    /// A layer that wants spans of a level.
    fn spans<S: Subscriber + for<'a> LookupSpan<'a>>() -> impl Layer<S> {
        let wanted = filter_fn(|meta: &Metadata<'_>| meta.is_span() && *meta.level() <= Level::INFO);
        Identity::new().with_filter(wanted.with_max_level_hint(LevelFilter::INFO))
    }

    #[test]
    fn there_is_no_span_outside_of_a_call() {
        let subscriber = registry().with(spans()).with(spans()).with(WithinCalls);
        assert_eq!(subscriber.max_level_hint(), Some(LevelFilter::INFO), "what is not wanted costs nothing");
        tracing::subscriber::with_default(subscriber, || {
            let part = || tracing::info_span!("part of a call");
            assert!(part().is_disabled());
            let call = tracing::info_span!(CALL_SPAN);
            let entered = call.enter();
            assert!(!call.is_disabled() && !part().is_disabled());
            drop(entered);
            assert!(part().is_disabled());
            assert!(!tracing::info_span!(target: "h2", "of a library").is_disabled(), "that is for the layers to say");
        });
    }
}
