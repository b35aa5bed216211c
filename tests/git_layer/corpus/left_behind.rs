//! What an agent leaves in its checkout and in its `.git`: shell scripts, run in the checkout.
//!
//! `$TRAP` is a program that tells whoever runs it, `$OUT` a folder that is nobody's business.

use super::End;

/// One thing an agent may leave behind.
pub struct Case {
    /// What it is, in words that can be a file name.
    pub name: &'static str,
    /// The script that arranges it.
    pub plant: &'static str,
    /// What a careless runner would do, to its harm; empty when there is nothing to run.
    pub careless: &'static str,
    /// What has to come of it.
    pub end: End,
}

/// Plain git runs the trap when it does `careless`.
const fn trap(name: &'static str, plant: &'static str, careless: &'static str) -> Case {
    Case { name, plant, careless, end: End::Works }
}

/// Nothing to run, but something to stumble over.
const fn snag(name: &'static str, plant: &'static str) -> Case {
    Case { name, plant, careless: "", end: End::Works }
}

/// Something that cannot be committed.
const fn refused(name: &'static str, plant: &'static str, words: &'static str) -> Case {
    Case { name, plant, careless: "", end: End::Refused(words) }
}

/// Defined before every script.
pub const PRELUDE: &str = r#"set -e
conf() { git config --file .git/config "$@"; }
hooks() {
    mkdir -p "$1"
    for hook in applypatch-msg pre-applypatch post-applypatch pre-commit pre-merge-commit \
        prepare-commit-msg commit-msg post-commit pre-rebase post-checkout post-merge pre-push \
        pre-receive update proc-receive post-receive post-update reference-transaction \
        push-to-checkout pre-auto-gc post-rewrite sendemail-validate fsmonitor-watchman \
        post-index-change p4-pre-submit; do
        printf '#!/bin/sh\nexec "%s" %s\n' "$TRAP" "$hook" > "$1/$hook"
        chmod 755 "$1/$hook"
    done
}
"#;

/// Programs named by the configuration.
pub const PROGRAMS: &[Case] = &[
    trap("hooks", "hooks .git/hooks", "git commit --allow-empty -m x"),
    trap("hooks-path", "hooks .git/h; conf core.hooksPath .git/h", "git commit --allow-empty -m x"),
    trap("hooks-path-tracked", "hooks h; conf core.hooksPath h", "git commit --allow-empty -m x"),
    trap("fsmonitor", r#"conf core.fsmonitor "$TRAP""#, "git status"),
    trap(
        "filter-clean",
        r#"echo '* filter=trap' > .gitattributes; conf filter.trap.clean "$TRAP"; conf filter.trap.required true"#,
        "git add --all",
    ),
    trap(
        "filter-smudge",
        r#"echo '* filter=trap' > .gitattributes; conf filter.trap.smudge "$TRAP""#,
        "rm README.md; git checkout README.md",
    ),
    trap(
        "filter-process",
        r#"echo '* filter=trap' > .gitattributes; conf filter.trap.process "$TRAP""#,
        "git add --all",
    ),
    trap(
        "filter-in-info",
        r#"mkdir -p .git/info; echo '* filter=trap' > .git/info/attributes; conf filter.trap.clean "$TRAP"; echo 2 >> README.md"#,
        "git add --all",
    ),
    Case {
        name: "filter-lfs",
        plant: r#"echo '* filter=lfs' > .gitattributes; conf filter.lfs.clean "$TRAP"; conf filter.lfs.process "$TRAP""#,
        careless: "git add --all",
        end: End::WantsLfs("belongs to Git LFS"),
    },
    trap(
        "diff-textconv",
        r#"echo '* diff=trap' > .gitattributes; conf diff.trap.textconv "$TRAP"; echo 2 >> README.md"#,
        "git diff",
    ),
    trap(
        "diff-command",
        r#"echo '* diff=trap' > .gitattributes; conf diff.trap.command "$TRAP"; echo 2 >> README.md"#,
        "git diff",
    ),
    trap("diff-external", r#"conf diff.external "$TRAP"; echo 2 >> README.md"#, "git diff"),
    trap(
        "merge-driver",
        r#"mkdir -p .git/info; echo '* merge=trap' > .git/info/attributes; conf merge.trap.driver "$TRAP""#,
        "git checkout -q -b a; echo a > README.md; git add -A; git commit -qm a; git checkout -q -b b HEAD~1;
         echo b > README.md; git add -A; git commit -qm b; git merge a",
    ),
    trap("ssh-command", r#"conf core.sshCommand "$TRAP""#, "git fetch ssh://host.invalid/x"),
    trap("git-proxy", r#"conf core.gitProxy "$TRAP""#, "git fetch git://host.invalid/x"),
    trap("editor", r#"conf core.editor "$TRAP""#, "git commit --allow-empty"),
    trap("pager", r#"conf core.pager "$TRAP""#, "script -qec 'git -p log' /dev/null"),
    trap("pager-of-log", r#"conf pager.log "$TRAP""#, "script -qec 'git log' /dev/null"),
    trap(
        "askpass",
        r#"conf core.askPass "$TRAP""#,
        r"printf 'protocol=https\nhost=h.invalid\n\n' | git credential fill",
    ),
    trap(
        "credential-helper",
        r#"conf credential.helper "!$TRAP""#,
        r"printf 'protocol=https\nhost=h.invalid\n\n' | git credential fill",
    ),
    trap(
        "credential-helper-of-a-host",
        r#"conf credential.https://h.invalid.helper "!$TRAP""#,
        r"printf 'protocol=https\nhost=h.invalid\n\n' | git credential fill",
    ),
    trap(
        "signing-program",
        r#"conf gpg.program "$TRAP"; conf commit.gpgSign true; conf push.gpgSign if-asked"#,
        "git commit --allow-empty -m x",
    ),
    trap(
        "instead-of-ext",
        r#"conf protocol.ext.allow always; conf "url.ext::$TRAP .insteadOf" file://; conf "url.ext::$TRAP .pushInsteadOf" file://"#,
        "git fetch file:///nowhere",
    ),
    trap(
        "origin-ext",
        r#"conf protocol.ext.allow always; conf remote.origin.url "ext::$TRAP x""#,
        "git fetch origin",
    ),
    trap("upload-pack", r#"conf remote.origin.uploadpack "$TRAP""#, "git fetch origin"),
    trap(
        "receive-pack",
        r#"conf remote.origin.receivepack "$TRAP""#,
        "git push origin HEAD:refs/heads/x",
    ),
    trap("vcs-helper", r#"conf remote.origin.vcs trap; conf alias.remote-trap "!$TRAP""#, "git remote-trap"),
    trap(
        "include",
        r#"git config --file .git/more core.fsmonitor "$TRAP"; conf include.path more"#,
        "git status",
    ),
    trap(
        "include-if-branch",
        r#"git config --file .git/more core.fsmonitor "$TRAP"; conf 'includeIf.onbranch:**.path' more"#,
        "git status",
    ),
    trap(
        "include-if-gitdir",
        r#"git config --file .git/more core.fsmonitor "$TRAP"; conf 'includeIf.gitdir:/**.path' more"#,
        "git status",
    ),
    trap(
        "worktree-configuration",
        r#"conf core.repositoryFormatVersion 1; conf extensions.worktreeConfig true; git config --file .git/config.worktree core.fsmonitor "$TRAP""#,
        "git status",
    ),
    trap(
        "submodule-update-command",
        r#"git init -q s; git -C s commit -q --allow-empty -m s; at=$(git -C s rev-parse HEAD)
           printf '[submodule "s"]\n\tpath = s\n\turl = ./s\n' > .gitmodules
           git update-index --add --cacheinfo "160000,$at,s"
           conf submodule.s.url ./s; conf submodule.s.update "!$TRAP"; git -C s checkout -q --orphan other"#,
        "git -C s commit -q --allow-empty -m s2; git submodule update",
    ),
    trap(
        "rebase-sequence-editor",
        r#"conf sequence.editor "$TRAP""#,
        "git commit -q --allow-empty -m 2; git rebase -i HEAD~1",
    ),
    trap(
        "trailer-command",
        r#"conf trailer.x.key x; conf trailer.x.command "$TRAP""#,
        "git commit --allow-empty -m x --trailer x=1",
    ),
    trap("difftool", r#"conf diff.tool x; conf difftool.x.cmd "$TRAP"; conf difftool.prompt false; echo 2 >> README.md"#, "git difftool"),
];

/// Other repositories in the place of this one; objects, references and the index.
pub const REPOSITORIES: &[Case] = &[
    trap(
        "git-folder-is-a-link",
        r#"cp -a .git "$OUT-evil.git"; rm -rf .git; ln -s "$OUT-evil.git" .git; conf core.fsmonitor "$TRAP""#,
        "git status",
    ),
    trap(
        "git-folder-is-a-file",
        r#"cp -a .git "$OUT-evil2.git"; rm -rf .git; echo "gitdir: $OUT-evil2.git" > .git; git config --file "$OUT-evil2.git/config" core.fsmonitor "$TRAP""#,
        "git status",
    ),
    trap(
        "common-folder-elsewhere",
        r#"cp -a .git "$OUT-common.git"; echo "$OUT-common.git" > .git/commondir; echo "$PWD/.git" > .git/gitdir; git config --file "$OUT-common.git/config" core.fsmonitor "$TRAP""#,
        "git status",
    ),
    trap(
        "nested-repositories",
        r#"for at in vendor/inner src; do mkdir -p $at; echo x > $at/inner.txt; git init -q $at; git config --file $at/.git/config core.fsmonitor "$TRAP"; hooks $at/.git/hooks; done"#,
        "git -C src status",
    ),
    trap(
        "bare-repository-inside",
        r#"git init -q --bare naked; git config --file naked/config core.fsmonitor "$TRAP"; git config --file naked/config core.bare false; git config --file naked/config core.worktree "$PWD/naked""#,
        "cd naked; git status",
    ),
    snag("pointer-to-the-parent", r#"mkdir p; echo "gitdir: $PWD/.git" > p/.git; echo x > p/x"#),
    snag("git-folder-is-gone", "rm -rf .git"),
    snag("git-folder-is-a-pipe", "rm -rf .git; mkfifo .git"),
    snag("worktree-elsewhere", r#"conf core.worktree "$OUT""#),
    snag(
        "worktree-list",
        r#"mkdir -p .git/worktrees/w; echo "$OUT/.git" > .git/worktrees/w/gitdir; echo ../.. > .git/worktrees/w/commondir"#,
    ),
    snag("alternates-elsewhere", r#"echo "$OUT/objects" > .git/objects/info/alternates"#),
    snag("alternates-in-a-circle", r#"echo "$PWD/.git/objects" > .git/objects/info/alternates"#),
    snag(
        "alternates-over-http",
        "echo http://127.0.0.1:1/objects > .git/objects/info/http-alternates",
    ),
    snag("objects-are-a-link", r#"rm -rf .git/objects; ln -s "$OUT" .git/objects"#),
    snag("head-escapes", "echo 'ref: refs/heads/../../../../x' > .git/HEAD"),
    snag("head-is-a-link", r#"rm .git/HEAD; ln -s "$OUT/secret.txt" .git/HEAD"#),
    snag("references-escape", r#"rm -rf .git/refs/heads; ln -s "$OUT" .git/refs/heads"#),
    snag(
        "symbolic-references",
        "echo 'ref: refs/heads/y' > .git/refs/heads/x; echo 'ref: refs/heads/x' > .git/refs/heads/y",
    ),
    snag(
        "packed-references-rubbish",
        r"printf '# pack-refs with: peeled\nxyz refs/heads/main\n^^^\n\000\377' > .git/packed-refs",
    ),
    snag(
        "replace-references",
        r#"at=$(git rev-parse HEAD); empty=$(git commit-tree -m evil "$(git mktree < /dev/null)"); mkdir -p .git/refs/replace; echo "$empty" > ".git/refs/replace/$at""#,
    ),
    snag(
        "grafts",
        r#"mkdir -p .git/info; echo "$(git rev-parse HEAD) 1111111111111111111111111111111111111111" > .git/info/grafts"#,
    ),
    snag("shallow", "git rev-parse HEAD > .git/shallow"),
    snag("index-rubbish", "head -c 5000 /dev/urandom > .git/index"),
    snag("index-is-locked", "touch .git/index.lock .git/HEAD.lock .git/config.lock"),
    snag("index-is-a-pipe", "rm -f .git/index; mkfifo .git/index"),
    snag(
        "index-names-outside",
        "git update-index --index-info <<E\n100644 $(git hash-object -w README.md)\tdeep/../../x\nE\ntrue",
    ),
    snag(
        "index-assumes-unchanged",
        "git update-index --assume-unchanged README.md; git update-index --skip-worktree src/main.txt; echo changed > README.md",
    ),
    snag("configuration-rubbish", "head -c 5000 /dev/urandom > .git/config"),
    snag("configuration-in-a-circle", "conf include.path config"),
    snag(
        "excludes-elsewhere",
        r#"conf core.excludesFile "$OUT/secret.txt"; conf core.attributesFile "$OUT/secret.txt""#,
    ),
    snag(
        "bisect-and-rebase-state",
        "touch .git/BISECT_LOG .git/MERGE_HEAD; mkdir -p .git/rebase-merge; echo x > .git/rebase-merge/git-rebase-todo",
    ),
];

/// Names, things that are no files, and the folders around the checkout.
pub const FILES: &[Case] = &[
    snag(
        "names-with-control-characters",
        r#"printf x > "$(printf 'new\nline')"; printf x > "$(printf 'red\033[31mtext')"; printf x > "$(printf 'bell\007')"; printf x > "$(printf 'tab\tname')""#,
    ),
    snag(
        "names-that-are-no-text",
        r#"printf x > "$(printf '\377\376')"; printf x > "$(printf 'caf\351')""#,
    ),
    snag(
        "names-with-a-dash",
        r"printf x > ./-rf; printf x > ./--upload-pack=sh; printf x > './--output=x'; mkdir ./--; printf x > ./--/-",
    ),
    snag(
        "names-that-are-commands",
        r"printf x > '$(touch pwned)'; printf x > '`id`'; printf x > 'a;b|c&d'; printf x > ':(top)*'; printf x > '*'; printf x > '!important'",
    ),
    snag(
        "names-that-are-long",
        r"n=$(printf 'n%.0s' $(seq 255)); printf x > $n; d=$(printf 'd/%.0s' $(seq 150)); mkdir -p $d; printf x > ${d}x",
    ),
    snag(
        "names-that-differ-in-case",
        "mkdir -p SRC; printf x > SRC/MAIN.TXT; printf x > readme.md; printf x > ReadMe.md",
    ),
    snag(
        "names-like-git",
        r#"mkdir -p deep/.GIT '.git ' .git. git~1 '.git::$INDEX_ALLOCATION' "$(printf '.g\342\200\214it')"; for at in deep/.GIT '.git ' .git. git~1 '.git::$INDEX_ALLOCATION' "$(printf '.g\342\200\214it')"; do printf x > "$at/config"; done"#,
    ),
    snag("names-like-gitmodules", r#"ln -s "$OUT/secret.txt" .gitmodules; printf x > gitmod~1"#),
    snag(
        "names-that-turn-around",
        r#"printf x > "$(printf 'a\342\200\256txt.exe')"; printf x > "$(printf 'a\342\200\213b')""#,
    ),
    snag(
        "pipes-and-sockets",
        r#"mkfifo pipe src/pipe; python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind("socket")'"#,
    ),
    snag("devices", "mknod null c 1 3 2> /dev/null || true; mknod zero c 1 5 2> /dev/null || true"),
    snag(
        "links-out",
        r#"ln -s "$OUT" outside; ln -s /etc/passwd passwd; ln -s ../../.. up; ln -s nowhere dangling; ln -s self self"#,
    ),
    snag("parent-is-a-link", r#"rm -rf src; ln -s "$OUT" src"#),
    snag(
        "file-became-a-folder",
        "rm README.md; mkdir README.md; printf x > README.md/x; rm -rf src; printf x > src",
    ),
    snag("hard-links", r#"ln "$OUT/secret.txt" hard; ln README.md again"#),
    snag(
        "rules-are-links",
        r#"ln -sf "$OUT/secret.txt" .gitignore; ln -sf /etc/passwd .gitattributes"#,
    ),
    snag(
        "rules-are-folders",
        "rm -f .gitignore; mkdir -p .gitignore .gitattributes; printf x > .gitignore/x",
    ),
    refused(
        "rules-are-pipes",
        "mkdir -p new; printf x > new/x; mkfifo new/.gitattributes",
        "is a pipe or a device",
    ),
    snag("rules-are-a-link-to-a-device", "ln -sf /dev/zero .gitattributes"),
    refused(
        "rules-are-odd",
        r"printf '[attr]a a\n[attr]b c\n[attr]c b\n* a b c eol=crlf text ident working-tree-encoding=UTF-16 filter=x -diff\n' > .gitattributes; printf '\377\000**/**/**/**/a\n!/\n[\n' >> .gitignore",
        "cannot be converted from working-tree-encoding=UTF-16",
    ),
    snag(
        "modules-of-all-kinds",
        r#"printf '[submodule "../../x"]\n\tpath = ../x\n\turl = ext::sh -c id\n[submodule "-u"]\n\tpath = -u\n\turl = -u./payload\n\tupdate = !id\n[include]\n\tpath = /etc/passwd\n' > .gitmodules"#,
    ),
    snag(
        "folders-that-are-closed",
        "mkdir closed; printf x > closed/x; chmod 000 closed; mkdir frozen; printf x > frozen/x; chmod 555 frozen; chmod 400 README.md",
    ),
    snag(
        "many-and-deep",
        "mkdir many; (cd many; seq 3000 | xargs touch); d=$(printf 'e/%.0s' $(seq 400)); mkdir -p $d; printf x > ${d}x",
    ),
    snag("marker-is-gone", "rm -f ../.archon-sandbox"),
    snag(
        "home-is-a-link",
        r#"rm -rf ../.home ../.tmp; ln -s "$OUT" ../.home; ln -s "$OUT" ../.tmp"#,
    ),
    refused(
        "checkout-is-a-link",
        r#"at=$PWD; cd ..; rm -rf "$at"; ln -s "$OUT" "$at""#,
        "is gone or is not a folder",
    ),
    refused("checkout-is-gone", r#"at=$PWD; cd ..; rm -rf "$at""#, "is gone or is not a folder"),
];

/// The table of a name.
pub fn table(name: &str) -> &'static [Case] {
    match name {
        "programs" => PROGRAMS,
        "repositories" => REPOSITORIES,
        "files" => FILES,
        _ => panic!("no table {name}"),
    }
}
