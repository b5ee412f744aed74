# SPDX-License-Identifier: MIT

# Builds and runs the program of this folder as a user would, who has of txhooks
#
#     find_package, pkg_config   what `cmake --install` installs, with CMake or with the compiler alone
#     deb                        what `cpack` writes, with both
#     add_subdirectory           the sources as a folder
#     fetch_content              the same as an archive
#     install_export             a library of somebody else's, which was installed with txhooks in it
#     single_header              what .ci/single-header writes for the core
#
#     cmake -D way=<way> -D compiler=<path> -D flags=<string> -D generator=<name> -D source=<txhooks> -D version=<x.y.z>
#           -D out=<empty folder> [-D made_by=<the CMake that installs>] -P check.cmake

cmake_minimum_required(VERSION 3.20)

set(here ${CMAKE_CURRENT_LIST_DIR})
if(NOT made_by)
    set(made_by ${CMAKE_COMMAND})
endif()
set(prefix ${out}/prefix)
file(REMOVE_RECURSE ${out})
file(MAKE_DIRECTORY ${out})

function(run)
    execute_process(COMMAND ${ARGN} RESULT_VARIABLE result OUTPUT_VARIABLE output ERROR_VARIABLE output)
    if(NOT result EQUAL 0)
        message(FATAL_ERROR "failed: ${ARGN}\n${output}")
    endif()
    set(output "${output}" PARENT_SCOPE)
endfunction()

function(expect what is)
    if(NOT what STREQUAL is)
        message(FATAL_ERROR "expected: ${what}\nthere is: ${is}")
    endif()
endfunction()

set(configure -G ${generator} -D CMAKE_CXX_COMPILER=${compiler} -D "CMAKE_CXX_FLAGS=${flags}")

function(install_txhooks)
    run(${made_by} -S ${source} -B ${out}/txhooks ${configure} -D TXHOOKS_BUILD_TESTS=OFF -D TXHOOKS_BUILD_EXAMPLES=OFF)
    if(way STREQUAL "deb")
        cmake_path(REPLACE_FILENAME made_by cpack OUTPUT_VARIABLE cpack)
        run(${CMAKE_COMMAND} -E chdir ${out} ${cpack} --config ${out}/txhooks/CPackConfig.cmake)
        run(dpkg-deb --show --showformat "\${Package} \${Version} \${Architecture}" ${out}/libtxhooks-dev_${version}_all.deb)
        expect("libtxhooks-dev ${version} all" "${output}")
        run(dpkg-deb --extract ${out}/libtxhooks-dev_${version}_all.deb ${out}/root)
        set(prefix ${out}/root/usr)
        set(prefix ${prefix} PARENT_SCOPE)
    else()
        run(${made_by} --install ${out}/txhooks --prefix ${prefix})
    endif()

    # Every header, and what else belongs to it.
    file(GLOB_RECURSE expected RELATIVE ${source} ${source}/include/*.hpp)
    list(
        APPEND
        expected
        share/cmake/txhooks/txhooks-config.cmake
        share/cmake/txhooks/txhooks-config-version.cmake
        share/doc/txhooks/LICENSE
        share/pkgconfig/txhooks.pc
    )
    file(GLOB_RECURSE installed RELATIVE ${prefix} ${prefix}/*)
    list(SORT expected)
    list(SORT installed)
    expect("${expected}" "${installed}")

    # An older CMake can read it.
    file(GLOB package ${prefix}/share/cmake/txhooks/*.cmake)
    foreach(file IN LISTS package)
        run(${CMAKE_COMMAND} -D files=${file} -P ${here}/old_cmake.cmake)
    endforeach()
endfunction()

# The program, from ARGN: where txhooks is.
function(build)
    run(${CMAKE_COMMAND} -S ${here} -B ${out}/consumer ${configure} -D way=${way} -D version=${version} ${ARGN})
    run(${CMAKE_COMMAND} --build ${out}/consumer)
    set(program ${out}/consumer/consumer PARENT_SCOPE)
endfunction()

function(compile)
    separate_arguments(flags UNIX_COMMAND "${flags}")
    run(${compiler} ${flags} -std=c++20 ${ARGN} ${here}/main.cpp -o ${out}/program)
    set(program ${out}/program PARENT_SCOPE)
endfunction()

function(compile_with_pkg_config)
    find_program(pkg_config NAMES pkg-config pkgconf)
    if(NOT pkg_config)
        message(FATAL_ERROR "this test needs pkg-config (apt-get install pkg-config)")
    endif()
    set(ENV{PKG_CONFIG_PATH} ${prefix}/share/pkgconfig)
    run(${pkg_config} --modversion txhooks)
    expect("${version}\n" "${output}")
    run(${pkg_config} --cflags txhooks)
    separate_arguments(cflags UNIX_COMMAND "${output}")
    compile(${cflags})
    set(program ${program} PARENT_SCOPE)
endfunction()

if(way STREQUAL "find_package")
    install_txhooks()
    # It can be moved.
    file(RENAME ${prefix} ${prefix}.moved)
    build(-D txhooks=${prefix}.moved -D CMAKE_PREFIX_PATH=${prefix}.moved)
elseif(way STREQUAL "pkg_config")
    install_txhooks()
    compile_with_pkg_config()
elseif(way STREQUAL "deb")
    install_txhooks()
    compile_with_pkg_config()
    build(-D txhooks=${prefix} -D CMAKE_PREFIX_PATH=${prefix})
elseif(way STREQUAL "add_subdirectory")
    build(-D txhooks=${source})
elseif(way STREQUAL "fetch_content")
    run(${CMAKE_COMMAND} -E chdir ${source} ${CMAKE_COMMAND} -E tar czf ${out}/txhooks.tar.gz -- CMakeLists.txt LICENSE include)
    build(-D txhooks=${out}/txhooks.tar.gz)
elseif(way STREQUAL "install_export")
    run(${made_by} -S ${here}/parent -B ${out}/parent ${configure} -D txhooks=${source})
    run(${made_by} --install ${out}/parent --prefix ${prefix})
    build(-D CMAKE_PREFIX_PATH=${prefix})
elseif(way STREQUAL "single_header")
    run(${source}/.ci/single-header ${out}/single/txhooks)
    compile(-I${out}/single)
else()
    message(FATAL_ERROR "no such way: ${way}")
endif()

run(${program})
expect("txhooks ${version}: the hook ran after the commit\n" "${output}")
message(STATUS "${way}, CMake ${CMAKE_VERSION}: ${output}")
