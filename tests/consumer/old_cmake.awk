# SPDX-License-Identifier: MIT
#
# What in CMake files is newer than 3.16, by the help that a CMake ships: commands, variables, properties, policies,
# modules, generator expressions, and most keywords of commands. Says which, and since when.
#
#     awk -f old_cmake.awk <file>... help=yes <CMAKE_ROOT>/Help/{command,variable,policy,prop_*,manual}/*.rst \
#         <CMAKE_ROOT>/Modules/*.cmake
#
# What is newer than that CMake itself is in no help, and an error when it reads the file.

function newer() { return match($0, /versionadded:: (3[.](1[7-9]|[2-9][0-9])|[4-9][.])/) }
function key(what) {
    sub(/^ *(.. signature:: *)?[a-z_]*[(]/, "", what)
    gsub(/[^A-Z_]/, "", what)
    return name " " what
}
function add(what, version) {
    added[key(what)] = version
    new_forms[key(what)]++
}
function since() { sub(/.*versionadded:: /, ""); return $0 }

FNR == 1 {
    name = FILENAME
    gsub(/.*\/|[.](rst|cmake)$/, "", name)
    kind = FILENAME ~ /\/Modules\// ? "module" : FILENAME
    if (help) sub(/\/[^\/]*$/, "", kind)
    sub(/.*\//, "", kind)
    keyword = sentence = ""
    signature = 0
}

# ---- The files: each word, with the command whose argument it is, and each generator expression

!help {
    sub(/(^|[ \t])#.*/, "")
    text = $0
    while (match(text, /[$]<[A-Z_]+|[A-Za-z_/.][A-Za-z0-9_/.]*|[()"]/)) {
        word = substr(text, RSTART, RLENGTH)
        text = substr(text, RSTART + RLENGTH)
        if (depth == 0 && text ~ /^[ \t]*[(]/) command = tolower(word)
        if (word == "(") depth++
        else if (word == ")") depth--
        else {
            used[word] = FILENAME
            if (depth == 0) used["command " command] = FILENAME
            else used[command " " word] = FILENAME
            if (command == "include") used["module " word] = FILENAME
            if (command ~ /propert(y|ies)$/) used["property " word] = FILENAME
        }
    }
    next
}

# ---- The help

# The page as a whole: said under its title.
kind ~ /^(command|variable|policy|module)$|^prop_/ && FNR <= 12 && newer() && !(name in whole) && keyword == "" {
    whole[name] = 1
    what = kind ~ /^(command|module)$/ ? kind " " name : kind ~ /^prop/ ? "property " name : name
    found(what, since())
    next
}
# A keyword: said under its paragraph or its signature, or in the sentence that adds it.
kind == "command" && !(name in whole) {
    if (sentence != "" && match($0, /``[A-Z][A-Z_]+``? (keyword|option)/)) add(substr($0, RSTART, RLENGTH), sentence)
    sentence = ""
    if (newer()) {
        sentence = since()
        if (keyword != "") add(keyword, sentence)
        keyword = ""
    } else if (match($0, /^ *``[A-Z][A-Z_]+/) || match($0, "^ *(.. signature:: *)?" name "[(][A-Z][A-Z_]+")) {
        keyword = substr($0, RSTART, RLENGTH)
        signature = keyword ~ /[(]/
        if (signature) forms[key(keyword)]++
    } else if (signature) signature = !/^$/
    else if (!/^$/) keyword = ""
}
FILENAME ~ /generator-expressions/ {
    if (match($0, /genex:: [$]<[A-Z_]+/)) { genex = substr($0, RSTART + 8, RLENGTH - 8); forms[genex]++ }
    else if (newer() && genex != "") { new_forms[genex]++; added[genex] = since(); genex = "" }
    else if (/^[^ .]/) genex = ""
}

function found(what, version) {
    if (what in used) {
        printf "%s: %s is newer than CMake 3.16: it came with %s\n", used[what], what, version
        wrong++
    }
}

END {
    # Not if there is a form of it that is older.
    for (what in added) if (new_forms[what] >= forms[what]) found(what, added[what])
    # Where the page has it in no such place.
    found("target_sources FILE_SET", "3.23")
    found("if PATH_EQUAL", "3.24")
    found("foreach ZIP_LISTS", "3.17")
    found("string JSON", "3.19")
    found("add_subdirectory SYSTEM", "3.25")
    if (depth != 0) { print "not understood: parentheses do not close"; wrong++ }
    exit wrong > 0
}
