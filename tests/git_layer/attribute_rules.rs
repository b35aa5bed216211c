//! What becomes of the bytes of a file: exactly what git commits, for every attribute that changes bytes.

use std::fs;

use proptest::{collection::vec, prelude::*, sample::select, test_runner::TestRunner};

use crate::{
    git_place::{Place, git_in},
    peer::{Files, Peer, open},
};
use archon_awo::{domain::ErrorClass, git::GitError};

const MIXED: &[u8] = b"one\r\ntwo\nthree\r\n";

fn utf16(text: &str, is_big: bool, has_mark: bool) -> Vec<u8> {
    let mark = if has_mark { "\u{feff}" } else { "" };
    let bytes = |unit: u16| if is_big { unit.to_be_bytes() } else { unit.to_le_bytes() };
    format!("{mark}{text}").encode_utf16().flat_map(bytes).collect()
}

fn utf32(text: &str, is_big: bool, has_mark: bool) -> Vec<u8> {
    let mark = if has_mark { "\u{feff}" } else { "" };
    let bytes = |unit: char| {
        if is_big { u32::from(unit).to_be_bytes() } else { u32::from(unit).to_le_bytes() }
    };
    format!("{mark}{text}").chars().flat_map(bytes).collect()
}

fn contents() -> Vec<Vec<u8>> {
    let text = "héllo\r\nwörld $Id: 1 $ 😀\r\n";
    let mut contents = vec![
        Vec::new(),
        MIXED.to_vec(),
        b"one\ntwo\n".to_vec(),
        b"one\rtwo\r\n".to_vec(),
        b"nul\0\r\n".to_vec(),
        b"dos\r\n\x1a".to_vec(),
        b"\x7f\x01\x02\r\n".to_vec(),
        b"$Id$ $Id: abc $ $Id: open\n$\r\n".to_vec(),
        b"caf\xe9\r\n".to_vec(),
        b"\x83\x65\x83\x58\x83\x67 \\~ \x81\x60\x81\x7c\r\n".to_vec(),
        b"\xa5\xc6\xa1\xc1\xcb\xae\r\n".to_vec(),
        text.as_bytes().to_vec(),
        b"version https://git-lfs.github.com/spec/v1\r\n".to_vec(),
    ];
    for (is_big, has_mark) in [(true, true), (true, false), (false, true), (false, false)] {
        contents.push(utf16(text, is_big, has_mark));
        contents.push(utf32(text, is_big, has_mark));
    }
    let mut torn = utf16(text, false, true);
    torn.pop();
    contents.push(torn);
    contents.push(b"\xff\xfe\x00\xd8h\0".to_vec());
    contents
}

const STATES: &[&str] = &[
    "text",
    "-text",
    "!text",
    "text=auto",
    "text=auto",
    "text=input",
    "text=odd",
    "eol=lf",
    "eol=crlf",
    "eol=odd",
    "crlf",
    "-crlf",
    "crlf=input",
    "crlf=auto",
    "binary",
    "-binary",
    "ident",
    "-ident",
    "filter=other",
    "working-tree-encoding=UTF-16",
    "working-tree-encoding=utf-16le",
    "working-tree-encoding=UTF-16BE",
    "working-tree-encoding=UTF16LE-BOM",
    "working-tree-encoding=UTF-16LE-BOM",
    "working-tree-encoding=UTF-32",
    "working-tree-encoding=UTF-32BE",
    "working-tree-encoding=UTF-8",
    "working-tree-encoding=utf8",
    "working-tree-encoding=ISO-8859-1",
    "working-tree-encoding=latin-1",
    "working-tree-encoding=SHIFT-JIS",
    "working-tree-encoding=CP1252",
    "working-tree-encoding=windows-1252",
    "working-tree-encoding=no-such",
    "working-tree-encoding=",
    "working-tree-encoding",
    "-working-tree-encoding",
    "!working-tree-encoding",
    "mine",
    "-mine",
    "-mine=x",
    "bad,name",
    "builtin_x",
    "diff=x",
];
const PATTERNS: &[&str] = &[
    "*",
    "*",
    "*.txt",
    "a.txt",
    "/a.txt",
    "sub/*.txt",
    "sub/**",
    "**/b.txt",
    "t.txt",
    "sub/",
    "[attr]mine",
    "[attr]binary",
    "\"a.txt\"",
    "\"\\141.txt\"",
    "!a.txt",
    "#",
    "  *.txt",
    "[ab].txt",
    "?.txt",
];
const NAMES: &[&str] =
    &["a.txt", "b.txt", "t.txt", "u.txt", "sub/a.txt", "sub/b.txt", "sub/deep/a.txt"];

fn rules() -> impl Strategy<Value = Vec<u8>> {
    let line = (select(PATTERNS), vec(select(STATES), 0..4), select(vec![" ", "\t", "  "]))
        .prop_map(|(pattern, states, blank)| format!("{pattern}{blank}{}", states.join(blank)));
    (vec(line, 0..5), select(vec!["\n", "\n", "\r\n"]), 0..20).prop_map(|(lines, end, mark)| {
        let mark = if mark == 0 { "\u{feff}" } else { "" };
        format!("{mark}{}{end}", lines.join(end)).into_bytes()
    })
}

fn tracked() -> Files {
    let crlf = ("t.txt".to_owned(), MIXED.to_vec());
    [crlf, ("u.txt".to_owned(), b"one\n".to_vec())].into()
}

#[test]
fn the_bytes_of_a_commit_are_those_that_git_would_add() {
    let peer = Peer::new(&tracked());
    let file = (select(NAMES), select(contents()));
    let places = vec((select(vec!["", "", "sub/", "sub/deep/"]), rules()), 0..4);
    let everything = (vec(file, 1..6), places, prop_oneof![9 => Just(Vec::new()), 1 => rules()]);
    let mut runner = TestRunner::new(ProptestConfig { cases: 150, ..ProptestConfig::default() });
    let found = runner.run(&everything, |(new, places, info)| {
        let mut files = tracked();
        files.extend(new.into_iter().map(|(path, content)| (path.to_owned(), content)));
        for (place, rules) in places {
            files.insert(format!("{place}.gitattributes"), rules);
        }
        peer.say(b"", &info, b"");
        let (changes, ours, theirs) = peer.compare(&files);
        match theirs {
            Ok(theirs) => {
                prop_assert_eq!(changes.refused, None);
                prop_assert_eq!(ours, theirs);
            }
            Err(words) => prop_assert!(changes.refused.is_some(), "git refuses: {}", words),
        }
        Ok(())
    });
    found.unwrap();
}

#[test]
fn every_attribute_that_changes_bytes_does_what_git_does() {
    let peer = Peer::new(&tracked());
    for state in STATES {
        let is_encoding = state.contains("encoding");
        // Each of these is tried file by file, which takes its time.
        let others: &[&str] =
            if is_encoding { &[" text=auto"] } else { &["", " text=auto", " ident eol=crlf"] };
        for other in others {
            let rules = format!("[attr]mine text ident\nc*.txt {state}{other}\n").into_bytes();
            let contents = contents().into_iter().enumerate();
            let mut tried: Vec<Files> = contents
                .map(|(number, content)| [(format!("c{number}.txt"), content)].into())
                .collect();
            // A file that git refuses would hide the others.
            if !is_encoding {
                tried = vec![tried.into_iter().flatten().collect()];
            }
            for mut files in tried {
                let case = format!("{state}{other}: {:?}", files.keys());
                files.extend(tracked());
                files.insert(".gitattributes".to_owned(), rules.clone());
                let (changes, ours, theirs) = peer.compare(&files);
                match theirs {
                    Ok(theirs) => assert_eq!((ours, changes.refused), (theirs, None), "{case}"),
                    Err(words) => assert!(changes.refused.is_some(), "{case}: {words}"),
                }
            }
        }
    }
}

#[test]
fn text_of_other_countries_is_converted_as_git_does() {
    let peer = Peer::new(&tracked());
    let texts: [(&str, &[u8]); 9] = [
        ("SHIFT-JIS", b"\x83\x65\x83\x58\x83\x67 \\~ \x81\x5f\x81\x60\x81\x7c\r\n"),
        ("CP932", b"\x83\x65\x83\x58\x83\x67 \\~ \x81\x60\n"),
        ("EUC-JP", b"\xa5\xc6\xa5\xb9\xa5\xc8 \\~ \xa1\xc1\xa1\xdd\n"),
        ("EUC-KR", b"\xc7\xd1\xb1\xdb\n"),
        ("GBK", b"\xd6\xd0\xce\xc4\xa1\xaa\n"),
        ("KOI8-R", b"\xf2\xd5\xd3\xd3\xcb\xc9\xca\n"),
        ("ISO-8859-9", b"\xddstanbul \xfd\n"),
        ("ISO-8859-15", b"\xa4 20\n"),
        ("windows-1251", b"\xcf\xf0\xe8\xe2\xe5\xf2\n"),
    ];
    let mut files = tracked();
    let rule = |encoding| format!("{encoding}.txt text working-tree-encoding={encoding}\n");
    let rules: String = texts.iter().map(|(encoding, _)| rule(encoding)).collect();
    files.extend(texts.map(|(encoding, content)| (format!("{encoding}.txt"), content.to_vec())));
    files.insert(".gitattributes".to_owned(), rules.into_bytes());
    let (changes, ours, theirs) = peer.compare(&files);
    assert_eq!((changes.refused, ours), (None, theirs.unwrap()));
}

#[tokio::test]
async fn a_file_that_is_not_in_its_encoding_fails_the_commit_with_its_name() {
    let place = Place::new();
    let sandbox = open(&place).await;
    let put = |name: &str, content: &[u8]| fs::write(sandbox.checkout.join(name), content).unwrap();
    put(".gitattributes", b"*.rc working-tree-encoding=UTF-16\n");
    put("app.rc", b"plain");
    let error = sandbox.commit("feat: resources").await.unwrap_err();
    assert_eq!((error.class(), error.retryable()), (ErrorClass::Invalid, false));
    assert!(
        error.to_string().starts_with(
            "the file \"app.rc\" cannot be converted from working-tree-encoding=UTF-16 to UTF-8: it \
             must begin with a byte order mark and does not; nothing was committed or pushed"
        ),
        "{error}"
    );
    // The work is looked at and saved all the same.
    assert_eq!(sandbox.changes().await.unwrap().refused, Some(error.to_string()));
    let bundles = place.path("bundles");
    place.git.save_unpushed(&sandbox.order, None, &bundles).await.unwrap().unwrap();
    put("app.rc", &utf16("text\n", false, true));
    sandbox.commit("feat: resources").await.unwrap().unwrap();
    sandbox.push(&place.remote(), &[]).await.unwrap();
    assert_eq!(place.ask_remote(&["show", "feat/x:app.rc"]), "text");
}

#[tokio::test]
async fn a_file_of_git_lfs_is_not_committed_raw_where_the_policy_leaves_it_alone() {
    let place = Place::new();
    let sandbox = open(&place).await;
    let put = |name: &str, content: &[u8]| fs::write(sandbox.checkout.join(name), content).unwrap();
    put(".gitattributes", b"*.bin filter=lfs diff=lfs merge=lfs -text\n");
    let pointer = format!(
        "version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize 12\n",
        "a".repeat(64)
    );
    put("pointer.bin", pointer.as_bytes());
    put("empty.bin", b"");
    sandbox.commit("feat: what stands for contents").await.unwrap().unwrap();
    put("raw.bin", b"a large file\0");
    let error = sandbox.commit("feat: contents").await.unwrap_err();
    assert_eq!((error.class(), error.retryable()), (ErrorClass::Invalid, false));
    let text = error.to_string();
    assert!(matches!(&error, GitError::NeedsLfs { path } if path == "raw.bin"), "{text}");
    assert!(text.contains("archon-awo repository URL --lfs true"), "{text}");

    // With the policy, the same sandbox commits what stands for the content.
    let sandbox = sandbox.keep_lfs().await.unwrap();
    sandbox.commit("feat: contents").await.unwrap().unwrap();
    let trusted = place.git.volume().trusted(&sandbox.order);
    let stands = git_in(&trusted, &["show", "feat/x:raw.bin"]);
    assert!(
        stands.starts_with("version https://git-lfs.github.com/spec/v1\noid sha256:"),
        "{stands}"
    );
    let again = place.git.find_sandbox(&sandbox.order, &place.remote().url).await.unwrap().unwrap();
    assert_eq!(again.commit("feat: again").await.unwrap().unwrap().commit_count, 2);
}
