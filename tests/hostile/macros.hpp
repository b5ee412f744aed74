// SPDX-License-Identifier: MIT
#pragma once

// Words that are macros in other people's code: of each header's those that could be names of ours. A poisoned one is an
// error wherever it is met; one that takes arguments bites before a parenthesis only.
//
// Not here, of curses: move, clear and erase, which members of standard containers are called too. Where these are
// macros <string> cannot be included any more, and so neither can what includes it.

// Qt
#pragma GCC poison slots signals emit foreach
#define forever poisoned
#pragma GCC poison Q_EMIT Q_SLOTS Q_SIGNALS Q_OBJECT Q_FOREACH Q_FOREVER Q_DECLARE_FLAGS

// X11
#pragma GCC poison None Bool Status True False Success Always Never Complex Convex Nonconvex Unsorted Above Below
#pragma GCC poison Absolute Atom Barrier Colormap Cursor CursorShape Damage Data Drawable Expose Fixed Font Glyphset Mask
#pragma GCC poison Region ClientMessage CurrentTime DestroyAll DisableAccess EnableAccess FocusIn FocusOut FreeResource
#pragma GCC poison GenericEvent GrabSuccess IsUnmapped IsViewable KeepAlive KeyCode KeyPress KeyRelease KeySym LockMask
#pragma GCC poison NextRequest NoExpose NoValue NormalState Opposite ParentRelative Relative RetainTemporary
#pragma GCC poison BadAccess BadAlloc BadName BadRequest BadValue AlreadyGrabbed AsyncBoth ControlMask

// Windows
#pragma GCC poison interface near far small hyper pascal cdecl boolean
#pragma GCC poison ABSOLUTE CALLBACK CONST DELETE DIFFERENCE ERROR FALSE IGNORE IN INFINITE NO_ERROR OPTIONAL OUT PASCAL
#pragma GCC poison RELATIVE STRICT SYNCHRONIZE THIS TRANSPARENT TRUE VOID
#pragma GCC poison AddJob BeginUpdate ClearEvent CopyFile CreateEvent CreateFile CreateMutex CreateProcess CreateService
#pragma GCC poison DeleteFile DispatchMessage DrawText EndUpdate FindFirst FindNext FindText FormatMessage FreeModule
#pragma GCC poison GetClassName GetCurrentTime GetFirstChild GetForm GetJob GetMessage GetNextSibling GetObject GetProp
#pragma GCC poison GlobalAlloc GlobalFree GlobalLock IsMaximized IsMinimized LoadImage LoadLibrary LoadString LogonUser
#pragma GCC poison MemoryBarrier MessageBox MoveFile OpenEvent OpenMutex OpenService PlaySound PostMessage ReadEvent
#pragma GCC poison RegisterClass RemoveDirectory RemoveProp ReplaceFile ReplaceText ReportEvent SendMessage SetForm SetJob
#pragma GCC poison SetPort SetProp StartService UpdateResource Yield
#define max(...) poisoned
#define min(...) poisoned

// curses, and <term.h>
#pragma GCC poison bell border buttons columns hangup lines newline pulse stdscr tab tone COLS LINES ERR OK
#define addstr(...) poisoned
#define beep(...) poisoned
#define box(...) poisoned
#define echo(...) poisoned
#define filter(...) poisoned
#define flash(...) poisoned
#define getch(...) poisoned
#define insch(...) poisoned
#define instr(...) poisoned
#define raw(...) poisoned
#define refresh(...) poisoned
#define scroll(...) poisoned
#define timeout(...) poisoned

// <sys/sysmacros.h>
#define major(...) poisoned
#define makedev(...) poisoned
#define minor(...) poisoned
