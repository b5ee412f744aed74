# SPDX-License-Identifier: MIT

# Builds and runs the program of this folder as a user would: with the installed package (`find_package`), with the
# sources as a folder (`add_subdirectory`), or with the compiler alone (`pkg_config`).
#
#     cmake -D way=<way> -D compiler=<path> -D flags=<string> -D generator=<name> -D source=<txhooks> -D build=<its build>
#           -D version=<x.y.z> -P check.cmake

set(here ${CMAKE_CURRENT_LIST_DIR})
set(out ${build}/tests/consumer/${way})
file(REMOVE_RECURSE ${out})
file(MAKE_DIRECTORY ${out})

function(run)
    execute_process(COMMAND ${ARGN} RESULT_VARIABLE result OUTPUT_VARIABLE output ERROR_VARIABLE output)
    if(NOT result EQUAL 0)
        message(FATAL_ERROR "failed: ${ARGN}\n${output}")
    endif()
    set(output "${output}" PARENT_SCOPE)
endfunction()

if(NOT way STREQUAL "add_subdirectory")
    run(${CMAKE_COMMAND} --install ${build} --prefix ${out}/prefix)
endif()

if(way STREQUAL "pkg_config")
    find_program(pkg_config NAMES pkg-config pkgconf)
    if(NOT pkg_config)
        message(FATAL_ERROR "this test needs pkg-config (apt-get install pkg-config)")
    endif()
    set(ENV{PKG_CONFIG_PATH} ${out}/prefix/share/pkgconfig)
    run(${pkg_config} --modversion txhooks)
    if(NOT output STREQUAL "${version}\n")
        message(FATAL_ERROR "txhooks.pc has version ${output}, not ${version}")
    endif()
    run(${pkg_config} --cflags txhooks)
    separate_arguments(cflags UNIX_COMMAND "${output}")
    separate_arguments(flags UNIX_COMMAND "${flags}")
    run(${compiler} ${flags} -std=c++20 ${cflags} ${here}/main.cpp -o ${out}/consumer)
else()
    set(from -D CMAKE_PREFIX_PATH=${out}/prefix)
    if(way STREQUAL "add_subdirectory")
        set(from -D txhooks_source=${source})
    endif()
    run(${CMAKE_COMMAND} -S ${here} -B ${out} -G ${generator} -D CMAKE_CXX_COMPILER=${compiler}
        -D "CMAKE_CXX_FLAGS=${flags}" ${from})
    run(${CMAKE_COMMAND} --build ${out})
endif()

run(${out}/consumer)
message(STATUS "${way}: ${output}")
