//! The log: lines for people on a terminal, one JSON object per line elsewhere, without secrets.

use std::{fmt, io::IsTerminal};

use opentelemetry::trace::TraceContextExt;
use serde_json::{Map, Value};
use tracing::{Event, Subscriber, field::Field};
use tracing_subscriber::{
    Layer,
    fmt::{
        FmtContext, FormatEvent, FormatFields, FormattedFields,
        format::{Format, Full, Writer},
        time::{FormatTime, SystemTime},
    },
    registry::LookupSpan,
};

use crate::{
    config::LogFormat,
    domain::{Redactor, for_json, for_terminal},
};

/// Who reads the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// Operators of a worker.
    Service,
    /// Whoever typed a command.
    Person,
}

/// The log on standard error: standard output belongs to what a command was asked for.
pub(super) fn layer<S>(
    format: LogFormat,
    audience: Audience,
    redactor: Redactor,
) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let terminal = std::io::stderr().is_terminal();
    let json = match format {
        LogFormat::Json => true,
        LogFormat::Human => false,
        LogFormat::Auto => audience == Audience::Service && !terminal,
    };
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    if json {
        // Fields as JSON text, so that the line can hold them as values.
        let fields = tracing_subscriber::fmt::format::JsonFields::new();
        layer.fmt_fields(fields).event_format(JsonLine { redactor }).boxed()
    } else {
        let colors = terminal && console::colors_enabled_stderr();
        let format = Format::default().with_target(false).with_ansi(colors);
        layer.with_ansi(colors).event_format(HumanLine { redactor, colors, format }).boxed()
    }
}

struct HumanLine {
    redactor: Redactor,
    colors: bool,
    format: Format<Full>,
}

impl<S, N> FormatEvent<S, N> for HumanLine
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        ctx: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut line = String::new();
        self.format.format_event(ctx, Writer::new(&mut line), event)?;
        let line = for_terminal(&self.redactor.text(line.trim_end_matches('\n')), self.colors);
        // Nobody makes a line look like one of ours.
        writeln!(writer, "{}", line.replace('\n', "\n    "))
    }
}

struct JsonLine {
    redactor: Redactor,
}

impl<S, N> FormatEvent<S, N> for JsonLine
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        ctx: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut line = Map::new();
        let mut timestamp = String::new();
        SystemTime.format_time(&mut Writer::new(&mut timestamp))?;
        let metadata = event.metadata();
        line.insert("timestamp".into(), timestamp.into());
        line.insert("level".into(), metadata.level().as_str().to_lowercase().into());
        line.insert("target".into(), metadata.target().into());

        // Fields of the enclosing spans, the innermost winning: `work_order.id` is on every line.
        let spans = ctx.event_scope().map(|scope| scope.from_root().collect::<Vec<_>>());
        let spans = spans.unwrap_or_default();
        for span in &spans {
            let extensions = span.extensions();
            if let Some(fields) = extensions.get::<FormattedFields<N>>()
                && let Ok(fields) = serde_json::from_str::<Map<String, Value>>(fields)
            {
                line.extend(fields);
            }
        }
        if let Some(span) = spans.last() {
            line.insert("span".into(), span.name().into());
        }
        event.record(&mut JsonFields(&mut line));

        let context = opentelemetry::Context::current();
        let span_context = context.span().span_context().clone();
        if span_context.is_valid() {
            line.insert("trace_id".into(), span_context.trace_id().to_string().into());
            line.insert("span_id".into(), span_context.span_id().to_string().into());
        }
        let text = serde_json::to_string(&line).map_err(|_| fmt::Error)?;
        writeln!(writer, "{}", for_json(&self.redactor.text(&text)))
    }
}

/// Puts the fields of an event into a JSON object.
struct JsonFields<'a>(&'a mut Map<String, Value>);

impl JsonFields<'_> {
    fn put(&mut self, field: &Field, value: impl Into<Value>) {
        self.0.insert(field.name().trim_start_matches("r#").to_owned(), value.into());
    }
}

impl tracing::field::Visit for JsonFields<'_> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value);
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.put(field, value.to_string());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use opentelemetry::trace::TracerProvider;
    use opentelemetry_sdk::trace::SdkTracerProvider;
    use tracing_subscriber::{fmt::format, layer::SubscriberExt};

    use super::JsonLine;
    use crate::{domain::Redactor, telemetry::link_or_parent};

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_json_line_names_the_callers_trace_and_the_fields_of_its_spans() {
        let kept = Kept::default();
        let writer = kept.clone();
        let tracers = SdkTracerProvider::builder().build();
        let subscriber = tracing_subscriber::registry()
            .with(tracing_opentelemetry::layer().with_tracer(tracers.tracer("test")))
            .with(
                tracing_subscriber::fmt::layer()
                    .fmt_fields(format::JsonFields::new())
                    .event_format(JsonLine { redactor: Redactor::default() })
                    .with_writer(move || writer.clone()),
            );
        let trace = "0af7651916cd43dd8448eb211c80319c";
        tracing::subscriber::with_default(subscriber, || {
            let span = tracing::info_span!("job.run", work_order.id = "wo-1", n = 1);
            link_or_parent(&span, &format!("00-{trace}-b7ad6b7169203331-01"));
            span.in_scope(|| tracing::warn!(error_class = "auth", n = 2, "it \"failed\""));
            let stray = tracing::info_span!("stray");
            link_or_parent(&stray, "no trace context");
            stray.in_scope(|| tracing::info!("alone"));
        });
        let text = String::from_utf8(kept.0.lock().unwrap().clone()).unwrap();
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines[0]["trace_id"], trace);
        assert_eq!(lines[0]["work_order.id"], "wo-1");
        assert_eq!((&lines[0]["n"], &lines[0]["level"]), (&2.into(), &"warn".into()));
        assert_eq!(
            (&lines[0]["message"], &lines[0]["span"]),
            (&"it \"failed\"".into(), &"job.run".into())
        );
        assert_ne!(lines[1]["trace_id"], trace);
        assert!(lines[1]["trace_id"].is_string() && lines[1]["span_id"].is_string());
    }
}
