@echo off
setlocal
rem For Windows: double-click this file. It finds a Python that this kit has packages for; start.py does the rest.
pushd "%~dp0" || goto nowhere
set "CODE=1"
for %%V in (3.11 3.12 3.13) do if exist "wheels\windows_amd64-py%%V.txt" (
    py -%%V -c "" >nul 2>nul && set "RUN=py -%%V"&& goto found
)
rem There is no launcher, or none of these Pythons. "python" may be any version: start.py says whether it fits.
rem It may also be a stub that only opens Microsoft's store; that one fails here.
set "RUN=python"
python -c "" >nul 2>nul && goto found
echo start: no Python was found. Install one from python.org, 64 bit, that this kit has packages for:
dir /b wheels\windows_*.txt
goto end

:found
rem This line is outside every bracket, because the arguments may hold brackets.
%RUN% start.py %*
set "CODE=%ERRORLEVEL%"

:end
popd
rem A window that a double-click opened would close before anybody can read what went wrong.
if not "%CODE%"=="0" pause
exit /b %CODE%

:nowhere
echo start: this folder cannot be opened: "%~dp0"
pause
exit /b 1
