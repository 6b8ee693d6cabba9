//! The filter of all layers for spans that belong to no traced call.

use tracing::subscriber::Interest;
use tracing::{Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use super::is_call;

/// Makes no span outside of the span of a call. The filters of layers are not enough: each says what its layer does not want,
/// and the registry makes every span that might be wanted by another one.
pub(super) struct WithinCalls;

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for WithinCalls {
    fn register_callsite(&self, meta: &'static Metadata<'static>) -> Interest {
        if meta.is_span() && !is_call(meta) { Interest::sometimes() } else { Interest::always() }
    }

    fn enabled(&self, meta: &Metadata<'_>, context: Context<'_, S>) -> bool {
        !meta.is_span() || is_call(meta) || context.lookup_current().is_some()
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::filter::filter_fn;
    use tracing_subscriber::layer::{Identity, SubscriberExt as _};
    use tracing_subscriber::registry;

    use super::*;
    use crate::call::context::CALL_SPAN;

    #[test]
    fn there_is_no_span_outside_of_a_call() {
        // Each layer has a type of its own, because it knows the layers below.
        let subscriber = registry()
            .with(Identity::new().with_filter(filter_fn(|meta| meta.is_span())))
            .with(Identity::new().with_filter(filter_fn(|meta| meta.is_span())))
            .with(WithinCalls);
        tracing::subscriber::with_default(subscriber, || {
            let part = || tracing::info_span!("part of a call");
            assert!(part().is_disabled());
            let call = tracing::info_span!(CALL_SPAN);
            let entered = call.enter();
            assert!(!call.is_disabled() && !part().is_disabled());
            drop(entered);
            assert!(part().is_disabled());
        });
    }
}
