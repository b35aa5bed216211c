//! W3C trace context across the queue: the trace of whoever ordered the work goes on in the worker.

use std::collections::HashMap;

use opentelemetry::{propagation::TextMapPropagator, trace::TraceContextExt};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

const HEADER: &str = "traceparent";

/// Makes `span` a child of the caller's span; where it has been started already, a link to it.
///
/// Call it right after making the span. Text that is no trace context changes nothing.
pub fn link_or_parent(span: &Span, traceparent: &str) {
    let carrier = HashMap::from([(HEADER.to_owned(), traceparent.to_owned())]);
    let caller = TraceContextPropagator::new()
        .extract_with_context(&opentelemetry::Context::new(), &carrier);
    let span_context = caller.span().span_context().clone();
    if span_context.is_valid() && span.set_parent(caller).is_err() {
        span.add_link(span_context);
    }
}

/// The trace context of the current span, to be stored with an order.
pub fn current_traceparent() -> Option<String> {
    let mut carrier = HashMap::new();
    TraceContextPropagator::new().inject_context(&Span::current().context(), &mut carrier);
    carrier.remove(HEADER)
}
