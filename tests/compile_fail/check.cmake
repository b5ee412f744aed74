# SPDX-License-Identifier: MIT

# Whether the compiler refuses `file` for the reason in its first line, `// error: <regex>`: the first error must match.
# With -DCONTROL the file is the same program without the mistake, and must compile; so a file that is broken in another
# way is noticed.
#
#     cmake -D compiler=<path> -D flags=<list> -D file=<path> -P check.cmake

file(STRINGS ${file} first_line LIMIT_COUNT 1)
if(NOT first_line MATCHES "^// error: (.+)$")
    message(FATAL_ERROR "${file}: the first line must be `// error: <regex>`")
endif()
set(expected "${CMAKE_MATCH_1}")

set(ENV{LC_ALL} C)  # plain quotes in GCC's messages
function(compile)
    execute_process(
        COMMAND ${compiler} ${flags} ${ARGN} -c ${file} -o /dev/null
        RESULT_VARIABLE result
        OUTPUT_VARIABLE output
        ERROR_VARIABLE output
    )
    set(result "${result}" PARENT_SCOPE)
    set(output "${output}" PARENT_SCOPE)
endfunction()

compile(-DCONTROL)
if(NOT result EQUAL 0)
    message(FATAL_ERROR "${file} must compile with -DCONTROL:\n${output}")
endif()

compile()
if(result EQUAL 0)
    message(FATAL_ERROR "${file} compiles; it must be refused with: ${expected}")
endif()
if(NOT output MATCHES "[^\n]*error: ([^\n]*)")
    message(FATAL_ERROR "${file} failed without an error message:\n${output}")
endif()
set(first_error "${CMAKE_MATCH_1}")
if(NOT first_error MATCHES "${expected}")
    message(FATAL_ERROR "${file}: the first error must match\n  ${expected}\nbut is\n  ${first_error}\n\n${output}")
endif()
message(STATUS "refused: ${first_error}")
