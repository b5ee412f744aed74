# SPDX-License-Identifier: MIT

# Never run: what old_cmake.awk must see, since when, and by which name.

cmake_path(GET file STEM name) # 3.20 command cmake_path
file(CONFIGURE OUTPUT file CONTENT text) # 3.18 file CONFIGURE
file(GENERATE OUTPUT file CONTENT text NEWLINE_STYLE UNIX) # 3.20 file NEWLINE_STYLE
target_sources(library INTERFACE FILE_SET HEADERS) # 3.23 target_sources FILE_SET
install(TARGETS library FILE_SET HEADERS) # 3.23 install FILE_SET
find_package(library GLOBAL) # 3.24 find_package GLOBAL
option(TESTS "" ${PROJECT_IS_TOP_LEVEL}) # 3.21 PROJECT_IS_TOP_LEVEL
set_target_properties(library PROPERTIES SYSTEM ON) # 3.25 property SYSTEM
cmake_policy(SET CMP0135 NEW) # 3.24 CMP0135
include(CheckSourceCompiles) # 3.19 module CheckSourceCompiles
set(name $<PATH:GET_STEM,file>) # 3.24 $<PATH
execute_process(COMMAND program COMMAND_ERROR_IS_FATAL ANY) # 3.19 execute_process COMMAND_ERROR_IS_FATAL
