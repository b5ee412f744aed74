# SPDX-License-Identifier: MIT

# Whether `files` use only what CMake 3.16 has, as far as the help of this CMake says; `newer.cmake` shows what is seen.
#
#     cmake -D files=<list> -P old_cmake.cmake

cmake_minimum_required(VERSION 3.20)

set(help "")
foreach(part command variable policy prop_dir prop_gbl prop_sf prop_tgt manual)
    file(GLOB pages ${CMAKE_ROOT}/Help/${part}/*.rst)
    if(NOT pages)
        message(FATAL_ERROR "this CMake has no help in ${CMAKE_ROOT}/Help/${part}")
    endif()
    list(APPEND help ${pages})
endforeach()
file(GLOB modules ${CMAKE_ROOT}/Modules/*.cmake)

function(old_cmake files)
    execute_process(
        COMMAND awk -f ${CMAKE_CURRENT_LIST_DIR}/old_cmake.awk ${files} help=yes ${help} ${modules}
        RESULT_VARIABLE result
        OUTPUT_VARIABLE output
        ERROR_VARIABLE error
    )
    set(result "${result}" PARENT_SCOPE)
    set(output "${output}${error}" PARENT_SCOPE)
endfunction()

# Each line of newer.cmake ends with what is to be found in it, by a CMake that knows it.
file(STRINGS ${CMAKE_CURRENT_LIST_DIR}/newer.cmake lines REGEX " # 3[.]")
set(seen 0)
old_cmake(${CMAKE_CURRENT_LIST_DIR}/newer.cmake)
foreach(line IN LISTS lines)
    string(REGEX MATCH " # (3[.][0-9]+) (.*)" matched "${line}")
    if(CMAKE_VERSION VERSION_LESS CMAKE_MATCH_1)
        continue()
    endif()
    string(FIND "${output}" "newer.cmake: ${CMAKE_MATCH_2} is newer than CMake 3.16: it came with ${CMAKE_MATCH_1}\n" at)
    if(at EQUAL -1)
        message(FATAL_ERROR "not seen: ${line}\n${output}")
    endif()
    math(EXPR seen "${seen} + 1")
endforeach()

old_cmake("${files}")
if(NOT result EQUAL 0)
    message(FATAL_ERROR "${output}")
endif()
message(STATUS "CMake 3.16 has all that is used; ${seen} newer things were seen elsewhere")
