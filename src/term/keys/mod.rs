//! Translation of a console's key events to the bytes of a remote terminal.
//!
//! Consoles that translate keys themselves (virtual terminal input, Windows 10 of 2017 and later) hand the sequences
//! over one character at a time, in events without a key code. Older ones, and wine's, hand over the keys: those are
//! translated here, as xterm does it. One rule serves both, since a console of the first kind never hands over what
//! the other would.

/// Characters that come as UTF-16 units, perhaps in halves that lie in different reads.
#[derive(Debug, Default)]
pub(super) struct Utf16 {
    /// The first half of a character.
    held: Option<u16>,
}

impl Utf16 {
    /// Appends what `unit` completes, as UTF-8. A half without its other half becomes U+FFFD.
    pub(super) fn push(&mut self, unit: u16, out: &mut Vec<u8>) {
        if let Some(first) = self.held.take() {
            match char::decode_utf16([first, unit]).next() {
                Some(Ok(character)) => return append(character, out),
                _ => append(char::REPLACEMENT_CHARACTER, out),
            }
        }
        match char::decode_utf16([unit]).next() {
            Some(Ok(character)) => append(character, out),
            _ if is_first_half(unit) => self.held = Some(unit),
            _ => append(char::REPLACEMENT_CHARACTER, out),
        }
    }
}

fn append(character: char, out: &mut Vec<u8>) {
    out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
}

/// A key event, as consoles record it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Key {
    pub is_down: bool,
    /// Number of repeats of the key.
    pub repeats: u16,
    /// Virtual key code; 0 for characters without a key.
    pub code: u16,
    /// The UTF-16 unit of the character, 0 for none.
    pub unit: u16,
    /// Modifiers and locks (`dwControlKeyState`).
    pub state: u32,
}

/// Makes bytes of key events.
#[derive(Debug, Default)]
pub(super) struct Keyboard {
    text: Utf16,
}

impl Keyboard {
    /// Appends what the event sends.
    pub(super) fn press(&mut self, key: Key, out: &mut Vec<u8>) {
        if !key.is_down {
            // A character spelt on the numeric pad comes when Alt is released.
            if key.code == code::ALT && key.unit != 0 {
                self.text.push(key.unit, out);
            }
            return;
        }
        for _ in 0..key.repeats.max(1) {
            self.press_once(key, out);
        }
    }

    fn press_once(&mut self, key: Key, out: &mut Vec<u8>) {
        let held = Modifiers::of(key.state);
        if key.unit == 0 {
            return without_character(key, held, out);
        }
        // Right Alt and Control together are AltGr, which is part of the character.
        if held.alt && !held.control && key.is_physical() {
            out.push(ESCAPE);
        }
        match key.code {
            code::BACKSPACE => out.push(if held.control { 0x08 } else { 0x7f }),
            code::TAB if held.shift => out.extend_from_slice(b"\x1b[Z"),
            code::SPACE if held.control && !held.alt => out.push(0),
            _ => self.text.push(key.unit, out),
        }
    }
}

impl Key {
    fn is_physical(self) -> bool {
        !matches!(self.code, 0 | code::ALT | code::PACKET)
    }

    /// The keys of the numeric pad that spell a character while Alt is held have a second meaning as these.
    fn spells_a_character(self, held: Modifiers) -> bool {
        held.alt && !held.control && self.state & state::ENHANCED == 0 && self.code < code::F1
    }
}

fn without_character(key: Key, held: Modifiers, out: &mut Vec<u8>) {
    match key.code {
        code::A..=code::Z if held.control && held.left_alt => {
            out.extend_from_slice(&[ESCAPE, (key.code & 0x1f) as u8]);
        }
        code::SPACE | code::TWO | code::BACKQUOTE if held.control && !held.alt => out.push(0),
        _ if key.spells_a_character(held) => {}
        _ => sequence(key.code, held, out),
    }
}

/// The terminal sequence of a key without a character, as xterm has it; nothing for a key that has none.
fn sequence(code: u16, held: Modifiers, out: &mut Vec<u8>) {
    let modifier = held.parameter();
    let text = match (cursor_letter(code), function_letter(code), number(code)) {
        (Some(letter), ..) if modifier == 1 => format!("\x1b[{letter}"),
        (_, Some(letter), _) if modifier == 1 => format!("\x1bO{letter}"),
        (Some(letter), ..) | (_, Some(letter), _) => format!("\x1b[1;{modifier}{letter}"),
        (.., Some(number)) if modifier == 1 => format!("\x1b[{number}~"),
        (.., Some(number)) => format!("\x1b[{number};{modifier}~"),
        _ => return,
    };
    out.extend_from_slice(text.as_bytes());
}

fn cursor_letter(code: u16) -> Option<char> {
    Some(match code {
        code::UP => 'A',
        code::DOWN => 'B',
        code::RIGHT => 'C',
        code::LEFT => 'D',
        code::END => 'F',
        code::HOME => 'H',
        _ => return None,
    })
}

fn function_letter(code: u16) -> Option<char> {
    ['P', 'Q', 'R', 'S'].get(usize::from(code.checked_sub(code::F1)?)).copied()
}

fn number(code: u16) -> Option<u8> {
    match code {
        code::INSERT => Some(2),
        code::DELETE => Some(3),
        code::PAGE_UP => Some(5),
        code::PAGE_DOWN => Some(6),
        // F5 to F12; the numbers leave gaps where the VT220's keyboard had them.
        _ => [15, 17, 18, 19, 20, 21, 23, 24].get(usize::from(code.checked_sub(code::F1 + 4)?)).copied(),
    }
}

#[derive(Clone, Copy, Debug)]
struct Modifiers {
    shift: bool,
    control: bool,
    alt: bool,
    left_alt: bool,
}

impl Modifiers {
    fn of(flags: u32) -> Modifiers {
        let has = |flag: u32| flags & flag != 0;
        Modifiers {
            shift: has(state::SHIFT),
            control: has(state::LEFT_CONTROL | state::RIGHT_CONTROL),
            alt: has(state::LEFT_ALT | state::RIGHT_ALT),
            left_alt: has(state::LEFT_ALT),
        }
    }

    /// xterm's parameter for modified keys; 1 for none.
    fn parameter(self) -> u8 {
        1 + u8::from(self.shift) + 2 * u8::from(self.alt) + 4 * u8::from(self.control)
    }
}

fn is_first_half(unit: u16) -> bool {
    (0xd800..0xdc00).contains(&unit)
}

const ESCAPE: u8 = 0x1b;

/// Virtual key codes (winuser.h).
pub(super) mod code {
    pub(crate) const BACKSPACE: u16 = 0x08;
    pub(crate) const TAB: u16 = 0x09;
    pub(crate) const ALT: u16 = 0x12;
    pub(crate) const SPACE: u16 = 0x20;
    pub(crate) const PAGE_UP: u16 = 0x21;
    pub(crate) const PAGE_DOWN: u16 = 0x22;
    pub(crate) const END: u16 = 0x23;
    pub(crate) const HOME: u16 = 0x24;
    pub(crate) const LEFT: u16 = 0x25;
    pub(crate) const UP: u16 = 0x26;
    pub(crate) const RIGHT: u16 = 0x27;
    pub(crate) const DOWN: u16 = 0x28;
    pub(crate) const INSERT: u16 = 0x2d;
    pub(crate) const DELETE: u16 = 0x2e;
    pub(crate) const TWO: u16 = 0x32;
    pub(crate) const A: u16 = 0x41;
    pub(crate) const Z: u16 = 0x5a;
    pub(crate) const F1: u16 = 0x70;
    /// The key that US keyboards have left of 1.
    pub(crate) const BACKQUOTE: u16 = 0xc0;
    /// Characters that a program typed.
    pub(crate) const PACKET: u16 = 0xe7;
}

/// Flags of `dwControlKeyState` (wincon.h).
pub(super) mod state {
    pub(crate) const RIGHT_ALT: u32 = 0x01;
    pub(crate) const LEFT_ALT: u32 = 0x02;
    pub(crate) const RIGHT_CONTROL: u32 = 0x04;
    pub(crate) const LEFT_CONTROL: u32 = 0x08;
    pub(crate) const SHIFT: u32 = 0x10;
    pub(crate) const ENHANCED: u32 = 0x100;
}

#[cfg(test)]
mod tests;
