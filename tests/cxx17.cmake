# SPDX-License-Identifier: MIT

# Whether the first error of an older language is the sentence that says so, and one of few, whichever of `headers` is
# included.
#
#     cmake -D compiler=<path> -D flags=<list> -D headers=<list> -P cxx17.cmake

if(NOT headers)
    message(FATAL_ERROR "no headers were given")
endif()
foreach(header IN LISTS headers)
    execute_process(
        COMMAND ${CMAKE_COMMAND} -E echo "#include <${header}>"
        COMMAND ${compiler} ${flags} -fsyntax-only -x c++ -
        OUTPUT_VARIABLE output
        ERROR_VARIABLE output
    )
    string(REGEX MATCHALL "error: [^\n]*" errors "${output}")
    list(LENGTH errors count)
    if(NOT errors MATCHES "^error: (#error )?\"txhooks needs C\\+\\+20: " OR count GREATER 2)
        message(FATAL_ERROR "<${header}> in C++17: ${count} errors:\n${output}")
    endif()
endforeach()
list(LENGTH headers count)
message(STATUS "each of ${count} headers says that C++20 is needed")
