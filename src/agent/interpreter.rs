//! Between an agent's lines and its conversation: translates the lines of CLIs that have a form of their own.

use serde_json::Value;

use super::{
    conversation::Conversation,
    frames::Frame,
    presets::{Listener, Preset},
};

/// Hears the lines of one run.
pub struct Interpreter {
    listener: Option<Box<dyn Listener>>,
}

impl Interpreter {
    /// For an agent that speaks the common form or plain text, or for one of the known CLIs.
    pub fn of(preset: Option<Preset>) -> Self {
        Self { listener: preset.map(Preset::listener) }
    }

    /// Takes the next line.
    pub fn hear(&mut self, frame: &Frame, conversation: &mut Conversation) {
        let Some(listener) = &mut self.listener else { return conversation.hear(frame) };
        match object(frame) {
            Some(line) => pass_on(listener.hear(&line), conversation),
            // Warnings and the like, which such a CLI prints beside its lines.
            None => conversation.truncated |= frame.truncated,
        }
    }

    /// Takes the end of the output.
    pub fn end(&mut self, conversation: &mut Conversation) {
        let lines = self.listener.as_mut().map(|listener| listener.end());
        pass_on(lines.unwrap_or_default(), conversation);
    }

    /// The agent's own name for the conversation, where it has one.
    pub fn own_name(&self) -> Option<String> {
        self.listener.as_ref()?.conversation().map(str::to_owned)
    }
}

fn pass_on(lines: Vec<Value>, conversation: &mut Conversation) {
    for line in lines {
        conversation.hear(&Frame { bytes: line.to_string().into_bytes(), truncated: false });
    }
}

fn object(frame: &Frame) -> Option<Value> {
    if frame.truncated {
        return None;
    }
    let text = String::from_utf8_lossy(&frame.bytes);
    serde_json::from_str(&text).ok().filter(Value::is_object)
}
