#!/bin/sh
[ "$(printf 'a\nb\n' | commands/lines)" = 2 ]
