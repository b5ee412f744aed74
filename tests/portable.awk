# SPDX-License-Identifier: MIT
#
# Whether headers keep to the language where the compiler is not asked which one it is: what only GCC and Clang know, or
# only POSIX has, stands in an #if. Attributes such as [[gnu::noinline]] are left alone: who does not know them must
# ignore them.
#
#     awk -f portable.awk <header>...

FNR == 1 { depth = 0 }
/^ *# *if/ { depth++ }
/^ *# *endif/ { depth-- }
{
    sub(/\/\/.*/, "")
    gsub(/"([^"\\]|\\.)*"/, "\"\"")
}
depth > 0 { next }
/__builtin_|__attribute__|__extension__|__int128|__typeof|__PRETTY_FUNCTION__|__declspec|(^|[^a-z_])asm[^a-z_]|#pragma +(GCC|clang)|_Pragma/ {
    print FILENAME ":" FNR ": outside of any #if: " $0
    wrong++
}
# The driver of MariaDB on Windows has not been tried.
/#include <(unistd[.]h|poll[.]h|pthread[.]h|dlfcn[.]h|signal[.]h|sys\/|bits\/|cxxabi[.]h|windows[.]h)/ && FILENAME !~ /backends\/mariadb[.]hpp$/ {
    print FILENAME ":" FNR ": outside of any #if: " $0
    wrong++
}
{ lines++ }
END {
    if (lines < 1000) { print "only " lines + 0 " lines were given"; exit 1 }
    exit wrong > 0
}
