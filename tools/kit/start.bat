@echo off
setlocal
rem Windows: double-click. Finds a Python that this kit has packages for; start.py does the rest.
pushd "%~dp0" || goto nowhere
set "CODE=1"
for %%V in (3.11 3.12 3.13) do if exist "wheels\windows_amd64-py%%V.txt" (
    py -%%V -c "" >nul 2>nul && set "RUN=py -%%V"&& goto found
)
rem No launcher, or none of these Pythons: whatever "python" is, start.py says whether it fits.
rem The name may also be a stub that only opens a shop; it fails here.
set "RUN=python"
python -c "" >nul 2>nul && goto found
echo start: no Python was found. Install one from python.org, 64 bit, that this kit has packages for:
dir /b wheels\windows_*.txt
goto end

:found
rem Outside every bracket: arguments may hold brackets of their own.
%RUN% start.py %*
set "CODE=%ERRORLEVEL%"

:end
popd
rem A window that was opened by a double-click must not close over what went wrong.
if not "%CODE%"=="0" pause
exit /b %CODE%

:nowhere
echo start: this folder cannot be opened: "%~dp0"
pause
exit /b 1
