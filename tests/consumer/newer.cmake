# SPDX-License-Identifier: MIT

# Never run: what old_cmake.awk must see, each with its name.

cmake_path(GET file STEM name) # command cmake_path
file(CONFIGURE OUTPUT file CONTENT text) # file CONFIGURE
file(GENERATE OUTPUT file CONTENT text NEWLINE_STYLE UNIX) # file NEWLINE_STYLE
target_sources(library INTERFACE FILE_SET HEADERS) # target_sources FILE_SET
install(TARGETS library FILE_SET HEADERS) # install FILE_SET
find_package(library GLOBAL) # find_package GLOBAL
option(TESTS "" ${PROJECT_IS_TOP_LEVEL}) # PROJECT_IS_TOP_LEVEL
set_target_properties(library PROPERTIES SYSTEM ON) # property SYSTEM
cmake_policy(SET CMP0135 NEW) # CMP0135
include(CheckSourceCompiles) # module CheckSourceCompiles
set(name $<PATH:GET_STEM,file>) # $<PATH
execute_process(COMMAND program COMMAND_ERROR_IS_FATAL ANY) # execute_process COMMAND_ERROR_IS_FATAL
