# SPDX-License-Identifier: MIT

# Whether <txhooks/txhooks.hpp> leaves out the standard headers that cost compile time in every file.
#
#     cmake -D compiler=<path> -D flags=<list> -P light_headers.cmake

execute_process(
    COMMAND ${CMAKE_COMMAND} -E echo "#include <txhooks/txhooks.hpp>"
    COMMAND ${compiler} ${flags} -M -x c++ -
    OUTPUT_VARIABLE included
    ERROR_VARIABLE error
    RESULTS_VARIABLE results
)
if(NOT results STREQUAL "0;0" OR NOT included MATCHES "/txhooks/txhooks.hpp")
    message(FATAL_ERROR "the compiler does not list what is included: ${error}")
endif()

set(found "")
foreach(header stdexcept functional memory string vector iostream)
    if(included MATCHES "[^ \n]*/${header}[ \n]")
        string(APPEND found " <${header}>")
    endif()
endforeach()
if(found)
    message(FATAL_ERROR "<txhooks/txhooks.hpp> includes${found}")
endif()
