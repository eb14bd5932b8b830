@echo off
rem Windows: double-click. Finds a Python that this kit has packages for; start.py does the rest.
pushd "%~dp0"
for %%V in (3.11 3.12 3.13) do (
    if exist "wheels\windows_amd64-py%%V.txt" (
        py -%%V -c "" >nul 2>nul && (
            py -%%V start.py %*
            goto end
        )
    )
)
python -c "" >nul 2>nul && (
    python start.py %*
    goto end
)
echo start: no Python was found. Install Python 3.11, 3.12 or 3.13, whichever this kit has packages for:
dir /b wheels\*.txt
:end
if errorlevel 1 pause
popd
