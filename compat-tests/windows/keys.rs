//! Bytes that keys send.

use super::*;

const SHIFT: u32 = 0x10;
const LEFT_CONTROL: u32 = 0x08;
const RIGHT_CONTROL: u32 = 0x04;
const ALT_GR: u32 = LEFT_CONTROL | 0x01;
const ENHANCED: u32 = 0x100;

#[test]
#[ignore = "run by scripts/windows"]
fn letters_and_characters() {
    let mut session = Session::start("--console");
    session.type_text("ls -l\r\t~äß€中文 日本語");
    for (code, unit) in [(0x51, '@'), (0x45, '€'), (0xe2, '\\'), (0x37, '{')] {
        session.press(true, code, unit as u16, ALT_GR);
        session.press(false, code, unit as u16, ALT_GR);
    }
    session.assert_sent("ls -l\r\t~äß€中文 日本語@€\\{");
}

/// Ended the keyboard, and the remote shell with it.
#[test]
#[ignore = "run by scripts/windows"]
fn an_emoji_in_halves_and_halves_of_nothing() {
    let mut session = Session::start("--console");
    // Both halves as keys of their own, with a pause in which the first is read.
    session.type_text("a");
    session.type_units(&[0xd83d]);
    session.type_text("");
    session.ask("modes");
    session.type_units(&[0xde00]);
    session.assert_sent("a😀");
    session.type_units(&[0xde00, 0x62, 0xd83d, 0x63, 0xd83d]);
    session.assert_sent("\u{fffd}b\u{fffd}c\u{fffd}");
    session.type_text("still here\r");
    session.assert_sent("still here\r");
}

/// "ab^Z" sent "ab", "^Z^Z" one of them.
#[test]
#[ignore = "run by scripts/windows"]
fn control_characters() {
    let mut session = Session::start("--console");
    for (keys, expected) in [("ab\x1a", "ab\x1a"), ("\x1a\x1a", "\x1a\x1a"), ("\x1a", "\x1a")] {
        session.type_text(keys);
        session.assert_sent(expected);
    }
    // As the keyboard has them: with key codes and the Control key.
    for (code, unit) in [(0x43, 3), (0x5a, 26), (0x53, 19), (0x51, 17), (0xdc, 28), (0x44, 4), (0x56, 22)] {
        session.press(true, code, unit, LEFT_CONTROL);
        session.press(false, code, unit, LEFT_CONTROL);
    }
    session.assert_sent([3, 26, 19, 17, 28, 4, 22]);
    session.press(true, 0x20, 0x20, LEFT_CONTROL);
    session.press(true, 0x08, 0x08, 0);
    session.press(true, 0x1b, 0x1b, 0);
    session.press(true, 0x41, 'a' as u16, 0);
    session.assert_sent([0, 0x7f, 0x1b, b'a']);
}

#[test]
#[ignore = "run by scripts/windows"]
fn arrows_and_function_keys() {
    let mut session = Session::start("--console");
    let mut expected = String::new();
    for (code, state, sequence) in [
        (0x26, 0, "\x1b[A"),
        (0x28, 0, "\x1b[B"),
        (0x27, RIGHT_CONTROL, "\x1b[1;5C"),
        (0x25, SHIFT, "\x1b[1;2D"),
        (0x25, SHIFT | LEFT_CONTROL, "\x1b[1;6D"),
        (0x24, 0, "\x1b[H"),
        (0x23, 0, "\x1b[F"),
        (0x2e, 0, "\x1b[3~"),
        (0x21, 0, "\x1b[5~"),
        (0x70, 0, "\x1bOP"),
        (0x73, 0, "\x1bOS"),
        (0x74, 0, "\x1b[15~"),
        (0x7b, 0, "\x1b[24~"),
    ] {
        let enhanced = if code < 0x70 { ENHANCED } else { 0 };
        session.press(true, code, 0, state | enhanced);
        session.press(false, code, 0, state | enhanced);
        expected += sequence;
    }
    session.assert_sent(expected);
}

#[test]
#[ignore = "run by scripts/windows"]
fn a_paste_of_a_megabyte() {
    let mut session = Session::start("--console");
    let line = "0123456789 äöü € 中文 😀 ^Z\x1a\r";
    let text = line.repeat(1_000_000 / line.len() + 1);
    session.type_text(&text);
    session.assert_sent(text);
}
