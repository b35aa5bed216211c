//! What a hostile server may serve: repositories written object by object, as no git would make them.

use std::{fs, path::Path};

use git2::{ObjectType, Oid, Repository};

use super::End;

/// One hostile repository.
pub struct Case {
    /// What it is, in words that can be a file name.
    pub name: &'static str,
    /// Writes it.
    pub build: fn(&Builder),
    /// What has to come of an order on it.
    pub end: End,
    /// ... when all that it names is fetched.
    pub whole: End,
}

const fn works(name: &'static str, build: fn(&Builder)) -> Case {
    Case { name, build, end: End::Works, whole: End::Works }
}

const fn refused(name: &'static str, words: &'static str, build: fn(&Builder)) -> Case {
    Case { name, build, end: End::Refused(words), whole: End::Refused(words) }
}

/// Refused for what it names, when that is wanted.
const fn refused_whole(name: &'static str, words: &'static str, build: fn(&Builder)) -> Case {
    Case { name, build, end: End::Works, whole: End::Refused(words) }
}

/// The table.
pub const CASES: &[Case] = &[
    refused("path-out", "invalid path '../x'", |b| b.serve(&[b.folder("..", &[b.file("x")])])),
    refused("path-here", "invalid path './x'", |b| b.serve(&[b.folder(".", &[b.file("x")])])),
    refused("path-with-a-slash", "invalid path '../../x'", |b| b.serve(&[b.file("../../x")])),
    refused("path-from-the-root", "invalid path '/x'", |b| b.serve(&[b.file("/x")])),
    refused("path-without-a-name", "empty filename", |b| b.serve(&[b.folder("", &[b.file("x")])])),
    refused("git-folder", "invalid path '.git/", |b| {
        b.serve(&[b.folder(".git", &[b.folder("hooks", &[b.program("post-checkout")])])]);
    }),
    refused("git-folder-in-capitals", "invalid path '.GIT/", |b| {
        b.serve(&[b.folder(".GIT", &[b.file("config")])]);
    }),
    refused("git-folder-short", "invalid path 'git~1/", |b| {
        b.serve(&[b.folder("git~1", &[b.file("config")])]);
    }),
    refused("git-folder-with-a-blank", "invalid path '.git /", |b| {
        b.serve(&[b.folder(".git ", &[b.file("config")])]);
    }),
    refused("git-folder-with-a-stream", "invalid path '.git::$INDEX_ALLOCATION/", |b| {
        b.serve(&[b.folder(".git::$INDEX_ALLOCATION", &[b.file("config")])]);
    }),
    refused("git-folder-invisible", "invalid path", |b| {
        b.serve(&[b.folder(".g\u{200c}it", &[b.file("config")])]);
    }),
    refused("git-folder-below", "invalid path 'a/.git/", |b| {
        b.serve(&[b.folder("a", &[b.folder(".git", &[b.file("config")])])]);
    }),
    refused("git-link", "invalid path '.git'", |b| b.serve(&[b.link(".git", "evil")])),
    refused("modules-link", "invalid path '.gitmodules'", |b| {
        b.serve(&[b.link(".gitmodules", "/etc/passwd")]);
    }),
    refused("name-too-long", "", |b| b.serve(&[b.file(&"n".repeat(5000))])),
    refused("too-deep", "", |b| {
        let mut entry = b.file("x");
        for _ in 0..3000 {
            entry = b.folder("d", &[entry]);
        }
        b.serve(&[entry]);
    }),
    refused("too-many", "more than", |b| {
        let mut entries = vec![b.file("x")];
        for _ in 0..9 {
            entries = (0..10).map(|n| b.folder(&format!("d{n}"), &entries)).collect();
        }
        b.serve(&entries);
    }),
    refused("branch-is-a-file", "", |b| b.point("refs/heads/main", b.blob("x"))),
    refused("branch-is-a-tree", "", |b| b.point("refs/heads/main", b.tree(&[b.file("x")]))),
    refused("branch-is-missing", "", |b| {
        b.point("refs/heads/main", Oid::from_str(&"1".repeat(40)).unwrap());
    }),
    refused("file-is-missing", "", |b| {
        let nothing = Oid::from_str(&"2".repeat(40)).unwrap();
        b.serve(&[Entry { mode: "100644", name: b"x".to_vec(), id: nothing }]);
    }),
    // A folder and a link of one name: git writes through no link.
    works("link-and-folder", |b| {
        b.serve(&[b.link("a", "../../../outside"), b.folder("a", &[b.file("secret.txt")])]);
    }),
    works("links-out", |b| {
        b.serve(&[b.link("etc", "/etc"), b.link("up", "../../../.."), b.link("a", "a")]);
    }),
    works("link-and-folder-in-capitals", |b| {
        b.serve(&[b.folder("A", &[b.file("x")]), b.link("a", "../../../outside")]);
    }),
    works("attributes-without-a-filter", |b| {
        let rules = "* filter=trap diff=trap merge=trap\n*.x filter=lfs diff=lfs merge=lfs -text\n";
        b.serve(&[b.text(".gitattributes", rules), b.file("y.x")]);
    }),
    works("attributes-that-are-odd", |b| {
        let rules =
            "[attr]a b\n[attr]b a\n* a working-tree-encoding=UTF-16 ident eol=crlf text=auto\n";
        b.serve(&[b.text(".gitattributes", &rules.repeat(50)), b.file("y")]);
    }),
    works("rules-that-are-links", |b| {
        b.serve(&[b.link(".gitattributes", "/dev/zero2"), b.link(".gitignore", "/etc/passwd")]);
    }),
    refused_whole("modules-of-all-kinds", "\"s\" cannot be fetched", |b| {
        let modules = "[submodule \"../../x\"]\n\tpath = s\n\turl = ext::sh -c id\n\
                       [submodule \"-u\"]\n\tpath = t\n\turl = -u./payload\n\tupdate = !id\n\
                       [include]\n\tpath = /etc/passwd\n";
        let commit = Oid::from_str(&"3".repeat(40)).unwrap();
        let module = |name: &str| Entry { mode: "160000", name: name.into(), id: commit };
        b.serve(&[b.text(".gitmodules", modules), module("s"), module("t")]);
    }),
    refused_whole("module-with-an-option", "has no host", |b| {
        b.serve_module("s", "--upload-pack=id");
    }),
    refused_whole("module-with-a-helper", "transport helper", |b| {
        b.serve_module("s", "ext::id");
    }),
    refused_whole("module-from-elsewhere", "not allowed", |b| {
        b.serve_module("s", "https://127.0.0.1/acme/app");
    }),
    refused_whole("module-without-its-commit", "does not have", |b| {
        b.serve_module("s", "../links-out.git");
    }),
    // The link comes first in its tree, the folder of the submodule second.
    works("module-below-a-link", |b| {
        let own = b.commit(&[b.file("secret.txt")]);
        b.point("refs/heads/inner", own);
        let module = Entry { mode: "160000", name: b"objects".to_vec(), id: own };
        let list = "[submodule \"x\"]\n\tpath = a/objects\n\turl = ../module-below-a-link.git\n";
        b.serve(&[
            b.text(".gitmodules", list),
            b.link("a", "../../../outside"),
            b.folder("a", &[module]),
        ]);
    }),
    refused_whole("modules-that-cannot-be-read", "cannot be read", |b| {
        let commit = Oid::from_str(&"3".repeat(40)).unwrap();
        let module = Entry { mode: "160000", name: b"s".to_vec(), id: commit };
        b.serve(&[b.text(".gitmodules", "[submodule \"s\n"), module]);
    }),
    works("pointers-of-all-kinds", |b| {
        let pointer = |oid: &str, size: &str| {
            format!("version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize {size}\n")
        };
        b.serve(&[
            b.text(".gitattributes", "*.x filter=lfs\n"),
            b.text("a.x", &pointer("../../../../../../outside/secret.txt", "3")),
            b.text("b.x", &pointer(&"0".repeat(64), "-1")),
            b.text("c.x", &pointer(&"0".repeat(64), "99999999999999999999999")),
            b.link("d.x", "/etc/passwd"),
        ]);
    }),
    refused_whole("a-pointer-to-more-than-there-is", "more than the whole volume", |b| {
        let oid = "0".repeat(64);
        let pointer = format!(
            "version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize 9999999999999999\n"
        );
        b.serve(&[b.text(".gitattributes", "*.x filter=lfs\n"), b.text("a.x", &pointer)]);
    }),
    refused_whole("lfs-configuration", "failed to fetch some objects", |b| {
        let config = "[lfs]\n\turl = https://127.0.0.1:1/steal\n\tstandalonetransferagent = x\n\
                      [lfs \"customtransfer.x\"]\n\tpath = id\n";
        let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0123456789012345678901234567890123456789012345678901234567890123\nsize 3\n";
        b.serve(&[
            b.text(".lfsconfig", config),
            b.text(".gitattributes", "*.x filter=lfs\n"),
            b.text("a.x", pointer),
        ]);
    }),
    works("names-of-all-kinds", |b| {
        let names = [
            "-rf",
            "$(touch pwned)",
            "new\nline",
            "red\u{1b}[31m",
            ":(top)*",
            "a\u{202e}txt",
            "con",
            "*",
        ];
        b.serve(&names.map(|name| b.file(name)));
    }),
    works("twice-the-same-name", |b| {
        b.serve(&[b.file("x"), b.file("x"), b.file("z"), b.file("y")]);
    }),
    works("modes-that-are-odd", |b| {
        let odd = |mode, name: &str| Entry { mode, name: name.into(), id: b.blob("x\n") };
        b.serve(&[odd("100777", "a"), odd("104755", "b"), odd("100600", "c"), odd("0100644", "d")]);
    }),
    works("default-branch-with-a-dash", |b| {
        b.serve(&[b.file("x")]);
        b.write("HEAD", "ref: refs/heads/--upload-pack=touch\n");
        b.point("refs/heads/--upload-pack=touch", b.commit(&[b.file("x")]));
    }),
    works("branches-of-all-kinds", |b| {
        let commit = b.commit(&[b.file("x")]);
        for name in ["-x", "a$(id)", "a;b", "HEAD", "refs/heads/main", "caf\u{e9}", "\u{202e}x"] {
            b.point(&format!("refs/heads/{name}"), commit);
        }
        b.serve(&[b.file("x")]);
    }),
    works("head-escapes", |b| {
        b.serve(&[b.file("x")]);
        b.write("HEAD", "ref: refs/heads/../../config\n");
    }),
    refused("references-escape", "dangerous", |b| {
        b.serve(&[b.file("x")]);
        let commit = b.commit(&[b.file("x")]);
        b.write("packed-refs", &format!("# pack-refs with: peeled fully-peeled sorted \n{commit} refs/heads/../../x\n{commit} refs/heads/ok\n"));
    }),
    works("replaced-and-grafted", |b| {
        let commit = b.publish(&[b.file("x")]);
        let other = b.commit(&[b.file("evil")]);
        b.point(&format!("refs/replace/{commit}"), other);
        b.write("info/grafts", &format!("{commit} {other}\n"));
        b.point("refs/meta/config", other);
        b.point("refs/awo/pulls/1", other);
    }),
    works("message-and-names-of-all-kinds", |b| {
        let tree = b.tree(&[b.file("x")]);
        let raw = format!(
            "tree {tree}\nauthor \u{1b}[31m$(id) <> 99999999999999999 +9999\ncommitter x <x@x> 0 -0000\nencoding nothing\ngpgsig x\n\n\u{7}\u{1b}]0;x\u{7}\n"
        );
        b.point("refs/heads/main", b.object(ObjectType::Commit, raw.as_bytes()));
    }),
    works("shallow", |b| {
        let commit = b.publish(&[b.file("x")]);
        b.write("shallow", &format!("{commit}\n"));
    }),
    works("many-references", |b| {
        let commit = b.publish(&[b.file("x")]);
        let line = |n| format!("{commit} refs/heads/many/{n:04}\n");
        let lines = (0..3000).map(line).collect::<Vec<_>>().concat();
        b.write("packed-refs", &format!("# pack-refs with: peeled fully-peeled sorted \n{lines}"));
    }),
];

/// An entry of a tree.
#[derive(Clone)]
pub struct Entry {
    mode: &'static str,
    name: Vec<u8>,
    id: Oid,
}

/// Writes a repository.
pub struct Builder {
    repository: Repository,
}

impl Builder {
    pub fn new(path: &Path) -> Self {
        let builder = Self { repository: Repository::init_bare(path).unwrap() };
        let config = "[core]\n\trepositoryformatversion = 0\n\tbare = true\n[receive]\n\tfsckObjects = false\n";
        builder.write("config", config);
        builder.write("HEAD", "ref: refs/heads/main\n");
        builder
    }

    fn object(&self, kind: ObjectType, bytes: &[u8]) -> Oid {
        self.repository.odb().unwrap().write(kind, bytes).unwrap()
    }

    fn blob(&self, text: &str) -> Oid {
        self.object(ObjectType::Blob, text.as_bytes())
    }

    fn text(&self, name: &str, text: &str) -> Entry {
        Entry { mode: "100644", name: name.into(), id: self.blob(text) }
    }

    fn file(&self, name: &str) -> Entry {
        self.text(name, "content\n")
    }

    fn program(&self, name: &str) -> Entry {
        Entry { mode: "100755", ..self.text(name, "#!/bin/sh\nexec \"$TRAP\"\n") }
    }

    fn link(&self, name: &str, target: &str) -> Entry {
        Entry { mode: "120000", name: name.into(), id: self.blob(target) }
    }

    fn folder(&self, name: &str, entries: &[Entry]) -> Entry {
        Entry { mode: "40000", name: name.into(), id: self.tree(entries) }
    }

    fn tree(&self, entries: &[Entry]) -> Oid {
        let mut bytes = Vec::new();
        for entry in entries {
            bytes.extend_from_slice(entry.mode.as_bytes());
            bytes.push(b' ');
            bytes.extend_from_slice(&entry.name);
            bytes.push(0);
            bytes.extend_from_slice(entry.id.as_bytes());
        }
        self.object(ObjectType::Tree, &bytes)
    }

    fn commit(&self, entries: &[Entry]) -> Oid {
        let author = "Server <server@example.invalid> 1 +0000";
        let text =
            format!("tree {}\nauthor {author}\ncommitter {author}\n\nServe\n", self.tree(entries));
        self.object(ObjectType::Commit, text.as_bytes())
    }

    fn point(&self, reference: &str, id: Oid) {
        self.write(reference, &format!("{id}\n"));
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.repository.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Serves a submodule in the folder `path` with this address.
    fn serve_module(&self, path: &str, url: &str) {
        let list = format!("[submodule \"m\"]\n\tpath = {path}\n\turl = {url}\n");
        let commit = Oid::from_str(&"3".repeat(40)).unwrap();
        let module = Entry { mode: "160000", name: path.into(), id: commit };
        self.serve(&[self.text(".gitmodules", &list), module]);
    }

    /// Makes the entries the content of the default branch.
    fn serve(&self, entries: &[Entry]) {
        self.publish(entries);
    }

    fn publish(&self, entries: &[Entry]) -> Oid {
        let mut entries = entries.to_vec();
        entries.push(self.file("zz-honest"));
        let commit = self.commit(&entries);
        self.point("refs/heads/main", commit);
        commit
    }
}
